"""Rows of many explanations, coalesced into few bounded calls of the predictor, each explanation with its own answer.

Parts that wait go out together, a bounded number of rows a call and a bounded number of calls at once; rows that are
equal are sent once. Beside them ride the explained row of each session in the call, and the marker: a few background
rows, by whose answers one model is told from another, so that cached answers are known to be the same model's. A call
that fails for reasons that may lie in one session's rows is made again for each session alone.

No I/O here: `call` is given in (`predictor.Predictor.call`). Everything runs in one event loop.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from explainers.budget import Budget
from explainers.cache import Cache
from explainers.coding import Array, Coding, Rows
from explainers.session import Part, Session, alike, distinct
from servelens.contract.errors import DeadlineExceeded, Overloaded, ServeLensError, UpstreamAway, UpstreamError

# Rows in, (rows, outputs) out, within so many seconds; the last is the caller's authorization where it is forwarded.
Call = Callable[[Rows, float, str], Awaitable[Array]]

MODELS: Final = 8  # distinct markers remembered in a lane
LANES: Final = 256  # callers remembered, where their authorization is forwarded
BATCH_ROWS: Final = 4096
SHARE: Final = 32  # rows of a session in a call, at least: its sentinel should not be half of them
IN_FLIGHT: Final = 2
PENDING_ROWS: Final = 1 << 20
# What no other session's rows can have caused.
_NOBODYS_FAULT: Final = (UpstreamAway, DeadlineExceeded)


class Watcher(Protocol):
    """What is told of the traffic, for metrics."""

    def saved(self, reason: str, rows: int) -> None:
        """Rows that were asked for and not sent: `cached` or `duplicate`."""

    def pending(self, rows: int) -> None:
        """Rows waiting now."""

    def changed(self) -> None:
        """Another model answered."""

    def failed(self, error: Exception) -> None:
        """An unexpected error was caught."""


@dataclass(eq=False, slots=True)
class _Batch:
    """(part, first row, rows) of each piece."""

    pieces: list[tuple[Part, int, int]] = field(default_factory=list)

    @property
    def sessions(self) -> list[Session]:
        return list(dict.fromkeys(part.session for part, *_ in self.pieces))

    def take(self, parts: Sequence[Part], room: int) -> int:
        """Take up to `room` rows of these parts, in order; how many were taken."""
        before = room
        for part in parts:
            taken = min(part.left, room)
            if taken:
                self.pieces.append((part, part.sent, taken))
                part.sent += taken
                room -= taken
        return before - room

    def alone(self) -> "list[_Batch]":
        """A batch for each session."""
        return [_Batch([piece for piece in self.pieces if piece[0].session is one]) for one in self.sessions]

    def fail(self, error: ServeLensError) -> None:
        for part, *_ in self.pieces:
            if not part.done.done():
                part.done.set_exception(error)


@dataclass(slots=True)
class _Lane:
    """What is known of the models one caller reaches: their markers by number, and which answered last."""

    markers: OrderedDict[int, Array] = field(default_factory=OrderedDict)
    newest: int | None = None


class Batcher:
    """One predictor's queue. `marker` is a few rows of the background."""

    def __init__(
        self,
        call: Call,
        coding: Coding,
        marker: Rows,
        watcher: Watcher,
        cache: Cache,
        *,
        batch_rows: int = BATCH_ROWS,
        in_flight: int = IN_FLIGHT,
        pending_rows: int = PENDING_ROWS,
    ) -> None:
        self._call, self._coding, self._marker, self._watcher, self.cache = call, coding, marker, watcher, cache
        self._room, self._limit = max(2, batch_rows - len(marker)), pending_rows
        self._slots = asyncio.Semaphore(in_flight)
        self._waiting: OrderedDict[str, deque[Part]] = OrderedDict()
        self._lanes: OrderedDict[str, _Lane] = OrderedDict()
        self._models = 0
        self._pump: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[None]] = set()

    def session(self, sentinel: Rows, budget: Budget, authorization: str = "") -> Session:
        """A view for the explanation of one row."""
        return Session(self, sentinel, budget, authorization)

    @property
    def pending(self) -> int:
        """Rows that wait for a call."""
        return sum(part.left for parts in self._waiting.values() for part in parts)

    def submit(self, part: Part) -> None:
        """Queue a part; Overloaded if too many rows wait."""
        pending = self.pending + len(part.rows)
        if pending > self._limit:
            raise Overloaded("too many rows wait for the predictor; ask again later")
        self._waiting.setdefault(part.session.lane, deque()).append(part)
        self._watcher.pending(pending)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.get_running_loop().create_task(self._send_all())

    async def _send_all(self) -> None:
        await asyncio.sleep(0)  # what is asked for in the same turn of the loop goes out together
        while True:
            await self._slots.acquire()
            batch = self._assemble()
            self._watcher.pending(self.pending)
            if batch is None:
                self._slots.release()
                return
            call = asyncio.get_running_loop().create_task(self._answer(batch))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    def _assemble(self) -> _Batch | None:
        """The next batch, of the lane that waits longest."""
        while self._waiting:
            lane, parts = self._waiting.popitem(last=False)
            by_session: dict[Session, list[Part]] = {}
            for part in parts:
                if part.left:
                    by_session.setdefault(part.session, []).append(part)
            if by_session:
                batch, served = self._fill(by_session)
                # Who was not served comes first the next time.
                order = [*(one for one in by_session if one not in served), *served]
                rest = deque(part for one in order for part in by_session[one] if part.left)
                if rest:
                    self._waiting[lane] = rest
                return batch
        return None

    def _fill(self, by_session: dict[Session, list[Part]]) -> tuple[_Batch, list[Session]]:
        """Equal shares for as many sessions as get a worthwhile one; within a session part after part."""
        served = list(by_session)[: max(1, self._room // SHARE)]
        room, batch, open_ = max(1, self._room - len(served)), _Batch(), list(served)
        while room > 0 and open_:
            share = max(1, room // len(open_))
            for session in list(open_):
                room -= batch.take(by_session[session], min(share, room))
                if not any(part.left for part in by_session[session]):
                    open_.remove(session)
        return batch, served

    async def _answer(self, batch: _Batch) -> None:
        """Send a batch and hand out its answer; where it fails, once more for each session alone."""
        try:
            try:
                await self._send(batch)
            except ServeLensError as error:
                if isinstance(error, _NOBODYS_FAULT) or len(batch.sessions) == 1:
                    batch.fail(error)
                    return
                for own in batch.alone():
                    try:
                        await self._send(own)
                    except ServeLensError as mine:
                        own.fail(mine)
        except Exception as error:  # noqa: BLE001 - the task's top: nobody else would ever wake those who wait
            self._watcher.failed(error)
            batch.fail(UpstreamError("the answer could not be used; the log of the explainer says why"))
        finally:
            self._slots.release()

    async def _send(self, batch: _Batch) -> None:
        sessions = batch.sessions
        pieces = [part.rows.mixed(part.rows.matrix[at : at + count]) for part, at, count in batch.pieces]
        joined = self._coding.join([self._marker, *(session.sentinel for session in sessions), *pieces])
        first, inverse = distinct(joined)
        seconds = max(session.budget.left() for session in sessions)
        distinct_rows = joined.mixed(joined.matrix[first])
        outputs = (await self._call(distinct_rows, seconds, sessions[0].authorization))[inverse]
        self._watcher.saved("duplicate", len(joined) - len(first))
        self._hand_out(batch, sessions, outputs)

    def _hand_out(self, batch: _Batch, sessions: Sequence[Session], outputs: Array) -> None:
        scale, head = float(np.abs(outputs).max()), len(self._marker)
        model = self._model(sessions[0].lane, outputs[:head], scale)
        for place, session in enumerate(sessions, head):
            own = 1 + sum(count for part, _, count in batch.pieces if part.session is session)
            session.note(model, outputs[place], own, scale)
        at = head + len(sessions)
        for part, start, count in batch.pieces:
            part.fill(start, outputs[at : at + count])
            at += count

    def _model(self, lane: str, marker: Array, scale: float) -> int:
        """Which model this is, by its answer to the marker: a number that is never used again for another."""
        known = self._lanes.setdefault(lane, _Lane())
        self._lanes.move_to_end(lane)
        while len(self._lanes) > LANES:
            self._lanes.popitem(last=False)
        number = next((number for number, seen in known.markers.items() if alike(seen, marker, scale)), -1)
        if number < 0:
            number = self._models = self._models + 1
            known.markers[number] = marker
            if len(known.markers) > MODELS:
                known.markers.popitem(last=False)
        if known.newest not in (None, number):
            self._watcher.changed()
        known.newest = number
        return number

    def newest(self, lane: str) -> int | None:
        """The model that answered last in a lane."""
        known = self._lanes.get(lane)
        return None if known is None else known.newest

    def saved(self, reason: str, rows: int) -> None:
        """Count rows that need not be sent."""
        self._watcher.saved(reason, rows)

    async def close(self) -> None:
        """End what is still on its way."""
        for task in [*self._calls, *([self._pump] if self._pump else [])]:
            task.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
