"""What the spool knows beside its rows, as one value, and every way that value changes. No I/O.

Apart from the files, since this is where the account is kept straight: a change is made here, and committed by `spool`
in the transaction of the rows it belongs to. Read by recorder, shipper and parent alike.

Exchanges are counted along the spool's whole life: the n-th exchange ever spooled has position n. A live segment is
known by the positions it spans, so what is unshipped is a difference of positions, even where its file is unreadable.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from logger.account import TapCounts
from servelens.contract.errors import StateError

Counts = Mapping[str, int]
Span = tuple[int, int]  # positions before the first and of the last exchange; OPEN at the end of the newest segment
OPEN: Final = -1


@dataclass(frozen=True, slots=True)
class Reported:
    """What accounting events have told so far: totals of offered and of each reason, up to Unix microseconds."""

    until_us: int = 0
    offered: int = 0
    reasons: Counts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class State:
    """The spool's state. Counts are exchanges; `seq` counts rows."""

    tapid: str = ""
    boot: str = ""  # the machine's boot this was written in
    seq: int = 0  # the last row number under this tapid
    spooled: int = 0  # exchanges ever spooled
    evicted: int = 0  # of these, given up before they were shipped
    offered: int = 0  # by streams that are settled
    reasons: Counts = field(default_factory=dict)
    streams: Counts = field(default_factory=dict)  # stream → last frame committed
    settled: tuple[str, ...] = ()  # streams settled whose account file may still be there
    segments: Mapping[int, Span] = field(default_factory=dict)  # the live ones
    reported: Reported = field(default_factory=Reported)
    # After a repair: exchanges that were shipped although this (older) state has not seen their frames, and of each
    # stream they may have come from how many at most. They are paid back where those frames turn up as missing.
    ahead: int = 0
    elders: Counts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far the shipper is: the last row done with, in (segment, seq), and what became of exchanges up to there."""

    tapid: str = ""
    segment: int = 0
    seq: int = 0
    total: int = 0  # exchanges spooled up to this row, shipped or not
    shipped: int = 0
    refused: int = 0


EMPTY: Final = State()


def added(counts: Counts, more: Counts) -> dict[str, int]:
    """The sum of both, zeros left out."""
    return {name: n for name in {**counts, **more} if (n := counts.get(name, 0) + more.get(name, 0))}


def lose(state: State, reason: str, count: int) -> State:
    """Count exchanges as lost, save those known to have been shipped before a repair."""
    paid = min(state.ahead, count)
    return replace(state, ahead=state.ahead - paid, reasons=added(state.reasons, {reason: count - paid}))


def unshipped(state: State, segment: int, cursor: Cursor) -> int:
    """Exchanges of a live segment that lie past the cursor."""
    start, end = state.segments[segment]
    return max(0, (state.spooled if end == OPEN else end) - max(start, cursor.total))


def waiting(state: State, cursor: Cursor, present: Iterable[int]) -> int:
    """Exchanges in segments that are there and not shipped."""
    return sum(unshipped(state, index, cursor) for index in present if index in state.segments)


def closed(state: State) -> State:
    """The newest segment is finished: its span ends here."""
    spans = {i: (start, state.spooled if end == OPEN else end) for i, (start, end) in state.segments.items()}
    return replace(state, segments=spans)


def rolled(state: State, segment: int) -> State:
    """A new newest segment."""
    state = closed(state)
    return replace(state, segments={**state.segments, segment: (state.spooled, OPEN)})


def without(state: State, segment: int) -> State:
    """A segment shipped to its end is no longer live."""
    return replace(state, segments={index: span for index, span in state.segments.items() if index != segment})


def evict(state: State, segment: int, cursor: Cursor, reason: str) -> State:
    """Give a segment up: what it held past the cursor is counted under `reason`."""
    count = unshipped(state, segment, cursor)
    reasons = added(state.reasons, {reason: count})
    return replace(without(state, segment), reasons=reasons, evicted=state.evicted + count)


def settle(state: State, stream: str, counts: TapCounts) -> State:
    """A dead tap's account joins the totals; what it offered and nobody has is `crash`."""
    known = state.streams.get(stream, 0) + sum(counts.reasons.values())
    state = replace(
        state, offered=state.offered + counts.offered, reasons=added(state.reasons, counts.reasons),
        settled=(*state.settled, stream),
    )  # fmt: skip
    return _forget(lose(state, "crash", max(0, counts.offered - known)), stream)


def settle_without_account(state: State, stream: str) -> State:
    """A stream whose account file is gone (another volume, or a restored older state): it offered what is committed."""
    return _forget(replace(state, offered=state.offered + state.streams[stream]), stream)


def _forget(state: State, stream: str) -> State:
    streams = {name: frame for name, frame in state.streams.items() if name != stream}
    return heard(replace(state, streams=streams), (stream,))


def heard(state: State, streams: Iterable[str]) -> State:
    """These streams have sent again what they still had, or are gone: of theirs nothing more will turn out missing."""
    gone = set(streams)
    return _pay_out(replace(state, elders={name: most for name, most in state.elders.items() if name not in gone}))


def _pay_out(state: State) -> State:
    """Shipped exchanges that no stream left can account for came from streams settled in the part that was lost."""
    rest = max(0, state.ahead - sum(state.elders.values()))
    return replace(state, offered=state.offered + rest, ahead=state.ahead - rest)


def restored(state: State, cursor: Cursor, present: Iterable[int], handed: Counts) -> State:
    """A state that may be older than the cursor, and segments that may be gone, made to add up again.

    Whatever lies before the cursor and was neither shipped nor evicted, and whatever lay in a segment that is not
    `present`, is `spool_lost`. `handed` are the frames handed over by each stream that has an account file.
    """
    unknown = max(0, cursor.total - cursor.shipped - cursor.refused - state.evicted)
    beyond = max(0, cursor.total - state.spooled)
    elders = {stream: max(0, frames - state.streams.get(stream, 0)) for stream, frames in handed.items()}
    state = closed(state) if beyond else state
    state = replace(
        state,
        spooled=state.spooled + beyond,
        ahead=state.ahead + beyond,
        evicted=state.evicted + unknown,
        reasons=added(state.reasons, {"spool_lost": unknown}),
        elders=elders if beyond else state.elders,
    )
    for index in sorted(set(state.segments) - set(present)):
        state = evict(state, index, cursor, "spool_lost")
    return _pay_out(state)


def rebuilt(state: State) -> Cursor:
    """A cursor for a volume that lost its own: everything live is shipped once more, nothing is counted twice.

    What is neither live nor evicted must have been shipped.
    """
    spans = closed(state).segments.values()
    start = min((start for start, _ in spans), default=state.spooled)
    live = sum(end - start for start, end in spans)
    return Cursor(state.tapid, total=start, shipped=max(0, state.spooled - state.evicted - live))


def dumps(state: State) -> bytes:
    """The state as JSON."""
    return orjson.dumps(state, option=orjson.OPT_NON_STR_KEYS)


def loads(raw: bytes) -> State:
    """The state from JSON; StateError if it is none of ours."""
    try:
        parts: dict[str, Any] = orjson.loads(raw)
        parts["segments"] = {int(index): (start, end) for index, (start, end) in parts["segments"].items()}
        parts["reported"] = Reported(**parts["reported"])
        parts["settled"] = tuple(parts["settled"])
        return State(**parts)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StateError(f"the spool's state cannot be read ({type(error).__name__})") from error
