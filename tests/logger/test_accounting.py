from logger.account import TapCounts
from logger.accounting import event, slot_end
from logger.intake import row_of
from logger.segment import unpack_headers
from logger.state import Reported, State
from servelens.contract.events import Accounting
from servelens.contract.identity import ModelIdentity
from servelens.contract.records import decode

IDENTITY = ModelIdentity("shop", "iris")


def told(state: State, *taps: TapCounts, until_us: int = 20_000_000) -> tuple[Accounting, Reported]:
    record, reported = event(state, taps, IDENTITY, 7, until_us)
    row = row_of(record, 7, 0)
    found = decode(unpack_headers(row.headers), row.value)
    assert isinstance(found, Accounting)
    return found, reported


def test_slots_end_at_multiples_since_the_epoch() -> None:
    assert slot_end(25_999_999, 10) == 20_000_000
    assert slot_end(30_000_000, 10) == 30_000_000
    assert slot_end(1_700_000, 0.5) == 1_500_000


def test_an_event_tells_what_came_since_the_last_one_of_living_and_settled_taps() -> None:
    state = State(
        tapid="t", offered=10, reasons={"crash": 2, "over_budget": 1},
        reported=Reported(10_000_000, 8, {"crash": 2}),
    )  # fmt: skip
    found, reported = told(state, TapCounts(5, 4, {"over_budget": 1}), TapCounts(1, 0, {}))
    assert (found.offered, found.reasons) == (8, {"over_budget": 2})
    assert (found.from_us, found.to_us, found.tapid, found.seq) == (10_000_000, 20_000_000, "t", 7)
    assert (found.identity.namespace, found.identity.inferenceservice) == ("shop", "iris")
    assert reported == Reported(20_000_000, 16, {"crash": 2, "over_budget": 2})


def test_nothing_new_is_told_as_nothing() -> None:
    state = State(tapid="t", offered=10, reported=Reported(10_000_000, 10, {}))
    found, _ = told(state)
    assert (found.offered, found.reasons) == (0, {})


def test_a_repaired_spool_that_knows_less_than_it_told_takes_nothing_back() -> None:
    state = State(tapid="t", offered=3, reasons={"crash": 1}, reported=Reported(10_000_000, 9, {"crash": 4}))
    found, reported = told(state)
    assert (found.offered, found.reasons) == (0, {})
    assert reported.offered == 3
