"""The account of the whole logger, put together from what lies on disk, for anyone who asks.

Reads only, beside running writers: the parent's admin port, the accounting events and the tests use it. A sum that is
read in the middle of a change is read again; each number may lag behind, but they belong together.
"""

import logging
import sqlite3
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from logger import cursor as cursors
from logger import segment as segments
from logger.account import REASONS, SUFFIX, Sum, TapCounts, read_account
from logger.state import EMPTY, Cursor, Reported, State, added, rebuilt, waiting
from servelens.contract.errors import StateError

log = logging.getLogger(__name__)
_ATTEMPTS: Final = 20


def streams_in(folder: Path) -> list[str]:
    """The streams that have an account file."""
    return sorted(path.name.removesuffix(SUFFIX) for path in folder.glob("*" + SUFFIX))


def account_of(folder: Path, stream: str) -> tuple[TapCounts, bool] | None:
    """A stream's counts and whether its tap lives; None if there is no such file, or it is none of ours."""
    try:
        return read_account(folder / (stream + SUFFIX))
    except FileNotFoundError:
        return None
    except StateError as error:
        log.warning("account file left out", extra={"stream": stream, "problem": str(error)})
        return None


def handed_over(folder: Path) -> dict[str, int]:
    """The frames each stream with an account file has handed over."""
    found = {stream: account_of(folder, stream) for stream in streams_in(folder)}
    return {stream: account[0].handed for stream, account in found.items() if account}


def unsettled(folder: Path, state: State) -> dict[str, TapCounts]:
    """The counts of every stream that is not settled, alive or dead."""
    found = {stream: account_of(folder, stream) for stream in streams_in(folder) if stream not in state.settled}
    return {stream: account[0] for stream, account in found.items() if account}


def totals(state: State, taps: Iterable[TapCounts], until_us: int = 0) -> Reported:
    """Exchanges offered, and dropped by reason, in the life of the volume."""
    offered, reasons = state.offered, dict(state.reasons)
    for counts in taps:
        offered += counts.offered
        reasons = added(reasons, counts.reasons)
    return Reported(until_us, offered, reasons)


def sum_of(state: State, cursor: Cursor, present: Iterable[int], taps: Mapping[str, TapCounts]) -> Sum:
    """The account. `present` are the segments on disk, `taps` the unsettled streams."""
    whole = totals(state, taps.values())
    under_way = sum(counts.open + counts.handed for counts in taps.values())
    # A stream of which only the rows are left (its account file is gone) offered at least what is committed.
    orphans = sum(frames for stream, frames in state.streams.items() if stream not in taps)
    committed = sum(frames for stream, frames in state.streams.items() if stream in taps)
    return Sum(
        offered=whole.offered + orphans,
        shipped=cursor.shipped,
        waiting=under_way - committed - state.ahead + waiting(state, cursor, present),
        reasons={name: whole.reasons.get(name, 0) for name in REASONS} | {"refused": cursor.refused},
    )


def _read(spool: Path, accounts: Path) -> tuple[Sum, bool]:
    """The sum, and whether nothing was settled, given up or deleted while it was read.

    The cursor is read before the state and the state before the taps: what is shipped was spooled, what is committed
    was handed over. The states around them tell whether anything changed sides meanwhile.
    """
    first = _state(spool)
    cursor = cursors.load(spool)
    state = _state(spool)
    present = segments.indices(spool)
    taps = unsettled(accounts, state)
    steady = _shape(first) == _shape(state) == _shape(_state(spool))
    return sum_of(state, cursor or rebuilt(state), present, taps), steady


def _state(spool: Path) -> State:
    _, state = segments.newest_state(spool) or (0, EMPTY)
    return state


def _shape(state: State) -> tuple[object, ...]:
    return state.tapid, state.settled, set(state.streams), set(state.segments), state.evicted, state.ahead


def summarise(spool: Path, accounts: Path) -> Sum:
    """The account of the logger whose spool and account files lie there; all zero if there is none.

    Never raises for what running writers do.
    """
    account = Sum(0, 0, 0, dict.fromkeys(REASONS, 0))
    for attempt in range(_ATTEMPTS):
        try:
            account, steady = _read(spool, accounts)
        except (sqlite3.Error, OSError) as error:
            log.debug("read again", extra={"problem": str(error)})
            steady = False
        if steady:
            break
        time.sleep(0.002 * attempt)
    return account


def total(accounts: Iterable[Sum]) -> Sum:
    """The account of several loggers, or of one with several spools."""
    offered = shipped = waiting = 0
    reasons: Mapping[str, int] = dict.fromkeys(REASONS, 0)
    for account in accounts:
        offered, shipped, waiting = offered + account.offered, shipped + account.shipped, waiting + account.waiting
        reasons = {name: count + account.reasons.get(name, 0) for name, count in reasons.items()}
    return Sum(offered, shipped, waiting, reasons)
