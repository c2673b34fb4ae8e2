"""Accounting events: what was offered and lost in each slot, told downstream as the denominator of coverage.

They travel through the spool like exchanges, and what has been told is committed with them: no slot is told twice.
Called by the recorder.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from logger.account import TapCounts
from logger.ledger import totals
from logger.state import Reported, State
from servelens.contract.events import Accounting, Record
from servelens.contract.identity import ModelIdentity
from servelens.contract.records import accounting_record
from servelens.contract.times import US

DEFAULT_SLOT: Final = 10.0  # seconds; the detector's default slot


def slot_end(now_us: int, slot_seconds: float) -> int:
    """The end of the last whole slot, in Unix microseconds: slots are counted from the epoch, as the detector does."""
    slot_us = round(slot_seconds * US)
    return now_us // slot_us * slot_us


def event(
    state: State, taps: Iterable[TapCounts], identity: ModelIdentity, seq: int, until_us: int
) -> tuple[Record, Reported]:
    """The event from the last one told up to `until_us`, a later time, and what has been told with it."""
    told, whole = state.reported, totals(state, taps, until_us)
    accounting = Accounting(
        tapid=state.tapid,
        seq=seq,
        identity=identity,
        from_us=told.until_us,
        to_us=until_us,
        offered=max(0, whole.offered - told.offered),
        reasons=_more(whole.reasons, told.reasons),
    )
    return accounting_record(accounting), whole


def _more(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """What came on top; a repaired spool may know less than it has told, and then tells nothing."""
    return {name: more for name, count in now.items() if (more := count - before.get(name, 0)) > 0}
