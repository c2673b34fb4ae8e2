"""What of a topic's records is counted, without Kafka."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import risk_model

from detectors.book import Book
from detectors.intake import Intake
from detectors.pane import Pane
from detectors.profile import Choices, Profile, Segment, build_profile
from servelens.contract import records
from servelens.contract.events import Exchange, Half
from servelens.contract.identity import ModelIdentity
from servelens.contract.schema import ModelSchema

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


def take(profiles: list[Profile], exchange: Exchange, seq: int = 1) -> tuple[Intake, list[dict[str, Any]]]:
    """An intake of a minute's slots after one exchange, and its panes."""
    intake = Intake(Book(profiles, 60), 60, 3600, {}, 0)
    made = records.encode(exchange, "exchange", seq)[0]
    intake.take(Logged(list(made.headers), made.value))
    return intake, list(intake.close(1).panes)


def test_what_is_no_inference_is_passed_over_before_anything_is_decoded(profile: Profile) -> None:
    broken = Half(b"{", 1, content_type="application/json")
    for other in (
        {"method": "GET"},
        {"path": "/v1/models/risk"},
        {"path": "/v2/health/ready"},
        {"path": "/v1/models/risk:explain"},
    ):
        intake = Intake(Book([profile], 60), 60, 3600, {}, 0)
        made = records.encode(replace(WHOLE, request=broken, **other), "exchange", 1)[0]  # type: ignore[arg-type]
        intake.take(Logged(list(made.headers), made.value))
        assert dict(intake.results) == {"not_inference": 1}
        assert intake.close(1).panes == intake.letters == []


@pytest.mark.parametrize(
    ("body", "counter"),
    [
        (b'{"instances": [["forty", 20.0, "Bern"]]}', "wrong_type"),
        (b'{"instances": [[40.0, "Bern"]]}', "wrong_schema"),
        (b'{"instances": [[40.0,, 20.0, "Bern"]]}', "wrong_schema"),
        (b'{"instances": [[40.0,', "unreadable"),
    ],
)
def test_a_request_of_another_schema_is_a_letter_and_counted_for_its_model(
    profile: Profile, body: bytes, counter: str
) -> None:
    intake = Intake(Book([profile], 60), 60, 3600, {}, 0)
    bad = replace(WHOLE, request=Half(body, len(body), content_type="application/json"))
    made = records.encode(bad, "exchange", 1)[0]
    intake.take(Logged(list(made.headers), made.value))
    assert len(intake.letters) == 1
    (pane,) = intake.close(1).panes
    assert (pane["rows"], pane["counters"]) == (0, {counter: 1})


def test_the_revision_of_a_payload_is_the_pane_s(profile: Profile) -> None:
    _, (pane,) = take([profile], replace(WHOLE, identity=replace(WHOLE.identity, revision="risk-00007")))
    assert pane["identity"]["revision"] == "risk-00007"
    assert pane["identity"]["modelname"] == "risk"


def test_a_segment_s_profile_counts_its_rows_beside_the_whole(profile: Profile, model: ModelSchema) -> None:
    table = risk_model.table_of(*risk_model.rows_of(np.random.default_rng(1), 3000))
    bern = build_profile(table, model, {}, Choices(segment=Segment("city", "Bern")))
    asked = b'{"instances": [[40.0, 20.0, "Bern"], [41.0, 21.0, "Graz"], [42.0, 22.0, "Bern"]]}'
    answered = b'{"predictions": [[0.4, 0.6], [0.5, 0.5], [0.6, 0.4]]}'
    three = replace(
        WHOLE,
        request=Half(asked, len(asked), content_type="application/json"),
        response=Half(answered, len(answered), content_type="application/json"),
    )
    _, panes = take([profile, bern], three)
    known = {one.digest: one for one in (profile, bern)}
    found = {pane["profile"]: Pane.from_mapping(known[pane["profile"]], pane) for pane in panes}
    assert (found[profile.digest].rows, found[bern.digest].rows) == (3, 2)
    assert found[bern.digest].column("city").sum() == found[bern.digest].column("score").sum() == 2
    elsewhere = asked.replace(b"Bern", b"Metz")
    _, none = take([bern], replace(three, request=Half(elsewhere, len(elsewhere), content_type="application/json")))
    assert none == []


def test_a_seasonal_profile_s_panes_say_which_season_their_rows_are_of(model: ModelSchema) -> None:
    rows = 4800
    table = risk_model.table_of(*risk_model.rows_of(np.random.default_rng(2), rows))
    hours = np.arange(rows) // 200 % 24
    seasonal = build_profile(table, model, {}, Choices(season="hour-of-day", season_of_row=hours))
    _, (pane,) = take([seasonal], WHOLE)
    assert pane["counters"] == {"producer_time": 1, "season_8": 1}  # 2027-01-15 08:00 UTC


def test_a_letter_of_a_split_exchange_has_both_of_its_halves(profile: Profile) -> None:
    """One alone, replayed, would wait for its other half for ever."""
    body = b'{"instances": [["forty", 20.0, "Bern"]]}'
    bad = replace(WHOLE, request=Half(body, len(body), content_type="application/json"))
    request, response = records.encode(bad, "all", 1)
    intake = Intake(Book([profile], 60), 60, 3600, {}, 0)
    for offset, made in enumerate((request, response)):
        intake.take(Logged(list(made.headers), made.value, offset))
    assert [(letter.record.offset, letter.reason) for letter in intake.letters] == [
        (0, "wrong_type"),
        (1, "wrong_type"),
    ]
    assert intake.letters[0].record.value == body
