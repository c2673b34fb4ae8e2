"""A few of the fault rounds on Apache Kafka; the hundreds are `rounds.py`."""

from pathlib import Path

import pytest
from conftest import has
from fault_checks import Check
from fault_kinds import BY_NAME
from fault_round import Run, running, told

ROUNDS = (
    ("tap killed",),
    ("recorder killed", "broker stopped"),
    ("shipper killed",),
    ("container killed",),
    ("broker killed", "tap killed"),
    ("recorder stopped", "shipper stopped"),
    ("broker slow",),
)


@pytest.mark.apache
@pytest.mark.timeout(300)
def test_answered_is_in_kafka_or_counted_whatever_dies(tmp_path: Path) -> None:
    if not has("java", "mvn"):
        pytest.skip("Apache Kafka needs a JDK and Maven")
    with running(tmp_path, seed=5) as run:
        rounds = [*ROUNDS, ("disk full", "tap killed")] if run.stack.mounted else ROUNDS
        troubles = [_round(run, number, names) for number, names in enumerate(rounds, 1)]
        ending = [check for check in run.finish() if not check.held]
    assert [trouble for trouble in troubles if trouble] == []
    assert ending == []
    assert sum(len(one.ledger.answered) for one, _ in run.results) > 500
    assert len(run.topic.numbers) > 500


def _round(run: Run, number: int, names: tuple[str, ...]) -> str:
    failed: list[Check]
    one, failed = run.round(number, [BY_NAME[name] for name in names])
    return told(one, failed, run.seed) if failed else ""
