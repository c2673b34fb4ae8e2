"""What of a topic's records is counted, without Kafka."""

from dataclasses import dataclass, replace

import pytest

from detectors.book import Book
from detectors.intake import Intake
from detectors.profile import Profile
from servelens.contract import records
from servelens.contract.events import Exchange, Half
from servelens.contract.identity import ModelIdentity

NOW_US = 1_800_000_000_000_000
ASKED = b'{"instances": [[40.0, 20.0, "Bern"]]}'
ANSWERED = b'{"predictions": [[0.4, 0.6]]}'
WHOLE = Exchange(
    exchangeid="0" * 32,
    arrived_us=NOW_US,
    identity=ModelIdentity("shop", "risk", "predictor", "risk", ""),
    method="POST",
    path="/v1/models/risk:predict",
    status=200,
    tapid="tap-1",
    request=Half(ASKED, len(ASKED), content_type="application/json"),
    response=Half(ANSWERED, len(ANSWERED), content_type="application/json"),
)


@dataclass(frozen=True, slots=True)
class Logged:
    headers: list[tuple[str, bytes]]
    value: bytes
    offset: int = 0
    timestamp: int = NOW_US // 1000
    timestamp_type: int = 0
    key: bytes | None = None


@pytest.mark.parametrize(
    ("exchange", "result"),
    [
        (WHOLE, "counted"),
        (replace(WHOLE, status=503), "failed"),
        (replace(WHOLE, status=None, response=Half()), "failed"),  # the predictor died over it
        (replace(WHOLE, status=None, tapid=""), "counted"),  # as KServe's agent says it
    ],
)
def test_only_what_was_answered_well_is_counted(profile: Profile, exchange: Exchange, result: str) -> None:
    intake = Intake(Book([profile]), 60, 3600, {}, 0)
    made = records.encode(exchange, "exchange", 1 if exchange.tapid else 0)[0]
    intake.take(Logged(list(made.headers), made.value))
    assert (dict(intake.results), len(intake.close(1).panes)) == ({result: 1}, 1 if result == "counted" else 0)
