"""Rows of many explanations, coalesced into few bounded calls of the predictor; each explanation sees one model only.

A `Session` is one explanation's view: it asks about rows, in any number of parts. Parts that wait go out together, in
turn, a bounded number of rows a call and a bounded number of calls at once; rows that are equal are sent once, and
rows to be kept come from the cache the next time. Two rows ride in every call to tell whether its answer is the same
model's as before: the explained row of each session with rows in it (the sentinel), and one background row, the
marker, by which cached answers know whose they are. Two answers to one of them, and the session ends with
UpstreamChanged.

No I/O here: `call` is given in (`predictor.Predictor.call`). Everything runs in one event loop.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from explainers.budget import Budget
from explainers.cache import Cache
from explainers.coding import Array, Coding, Rows
from explainers.explanation import Cost
from servelens.contract.errors import DeadlineExceeded, Overloaded, ServeLensError, UpstreamChanged, UpstreamError

# Rows in, (rows, outputs) out, within so many seconds; `lane` is the caller's authorization where that is forwarded.
Call = Callable[[Rows, float, str], Awaitable[Array]]

TOLERANCE: Final = 1e-5  # relative: batches of other sizes round otherwise
MODELS: Final = 8  # distinct markers remembered
BATCH_ROWS: Final = 4096
IN_FLIGHT: Final = 2
PENDING_ROWS: Final = 1 << 20


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
class _Part:
    """Distinct rows of one session; `sent` of them are on their way, `outputs` fills up."""

    session: "Session"
    rows: Rows
    done: asyncio.Future[None]
    outputs: list[Array] = field(default_factory=list)
    sent: int = 0
    answered: int = 0

    @property
    def left(self) -> int:
        return 0 if self.done.done() else len(self.rows) - self.sent


class Batcher:
    """One predictor's queue. `marker` is one row."""

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
        self._batch_rows, self._limit = batch_rows, pending_rows
        self._slots = asyncio.Semaphore(in_flight)
        self._waiting: dict[str, deque[_Part]] = {}
        self._markers: dict[str, list[Array]] = {}
        self.newest: dict[str, int] = {}
        self._pump: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[None]] = set()

    def session(self, sentinel: Rows, budget: Budget, lane: str = "") -> "Session":
        """A view for the explanation of one row."""
        return Session(self, sentinel, budget, lane)

    @property
    def pending(self) -> int:
        """Rows that wait for a call."""
        return sum(part.left for parts in self._waiting.values() for part in parts)

    def submit(self, part: _Part) -> None:
        """Queue a part; Overloaded if too many rows wait."""
        if self.pending + len(part.rows) > self._limit:
            raise Overloaded(f"{self.pending} rows wait for the predictor; ask again later")
        self._waiting.setdefault(part.session.lane, deque()).append(part)
        self._watcher.pending(self.pending)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.get_running_loop().create_task(self._send_all())

    async def _send_all(self) -> None:
        await asyncio.sleep(0)  # what is asked for in the same turn of the loop goes out together
        while self.pending:
            await self._slots.acquire()
            batch = self._assemble()
            self._watcher.pending(self.pending)
            if batch is None:
                self._slots.release()
                break
            call = asyncio.get_running_loop().create_task(self._answer(batch))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    def _assemble(self) -> "_Batch | None":
        """The next batch, of the lane that waits longest."""
        for lane in list(self._waiting):
            parts = deque(part for part in self._waiting.pop(lane) if part.left)
            if parts:
                batch = self._fill(lane, parts)
                rest = deque(part for part in parts if part.left)
                if rest:
                    self._waiting[lane] = rest  # behind the other lanes
                return batch
        return None

    def _fill(self, lane: str, parts: deque[_Part]) -> "_Batch":
        """An equal share of the room for each session; within one, part after part, so that some are whole early."""
        sessions: dict[Session, list[_Part]] = {}
        for part in parts:
            sessions.setdefault(part.session, []).append(part)
        room, batch = max(1, self._batch_rows - 1 - len(sessions)), _Batch(lane)
        while room > 0 and sessions:
            share = max(1, room // len(sessions))
            for session, own in list(sessions.items()):
                room -= batch.take(own, min(share, room))
                if not any(part.left for part in own):
                    del sessions[session]
        return batch

    async def _answer(self, batch: "_Batch") -> None:
        """Send a batch and hand out its answer, or its error, to every part in it."""
        sessions = batch.sessions
        try:
            rows, inverse = self._distinct(batch, sessions)
            seconds = max(session.budget.left() for session in sessions)
            outputs = (await self._call(rows, seconds, batch.lane))[inverse]
            self._hand_out(batch, sessions, outputs)
        except ServeLensError as error:
            batch.fail(error)
        except Exception as error:  # noqa: BLE001 - the task's top: nobody else would ever wake those who wait
            self._watcher.failed(error)
            batch.fail(UpstreamError("the answer could not be used; the log of the explainer says why"))
        finally:
            self._slots.release()

    def _distinct(self, batch: "_Batch", sessions: Sequence["Session"]) -> tuple[Rows, Array]:
        """The rows to send, each once: marker, sentinels, pieces; and where in them each of these is."""
        pieces = [part.rows.mixed(part.rows.matrix[at : at + count]) for part, at, count in batch.pieces]
        joined = self._coding.join([self._marker, *(session.sentinel for session in sessions), *pieces])
        first, inverse = distinct(joined)
        self._watcher.saved("duplicate", len(joined) - len(first))
        return joined.mixed(joined.matrix[first]), inverse

    def _hand_out(self, batch: "_Batch", sessions: Sequence["Session"], outputs: Array) -> None:
        model = self._model(batch.lane, outputs[0])
        for place, session in enumerate(sessions, 1):
            own = 1 + sum(count for part, _, count in batch.pieces if part.session is session)
            session.note(model, outputs[place], own)
        at = 1 + len(sessions)
        for part, start, count in batch.pieces:
            part.session.fill(part, start, outputs[at : at + count])
            at += count

    def _model(self, lane: str, marker: Array) -> int:
        """Which model this is, by its answer to the marker: a number, new for one that was not seen before."""
        known = self._markers.setdefault(lane, [])
        number = next((number for number, seen in enumerate(known) if alike(seen, marker)), -1)
        if number < 0:
            if len(known) >= MODELS:
                known.clear()
            known.append(marker)
            number = len(known) - 1
        if lane in self.newest and self.newest[lane] != number:
            self._watcher.changed()
        self.newest[lane] = number
        return number

    async def close(self) -> None:
        """End what is still on its way."""
        for task in [*self._calls, *([self._pump] if self._pump else [])]:
            task.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    def saved(self, reason: str, rows: int) -> None:
        """Count rows that need not be sent."""
        self._watcher.saved(reason, rows)


@dataclass(eq=False, slots=True)
class _Batch:
    lane: str
    pieces: list[tuple[_Part, int, int]] = field(default_factory=list)

    @property
    def sessions(self) -> list["Session"]:
        return list(dict.fromkeys(part.session for part, *_ in self.pieces))

    def take(self, parts: Sequence[_Part], room: int) -> int:
        """Take up to `room` rows of these parts, in order; how many were taken."""
        before = room
        for part in parts:
            taken = min(part.left, room)
            if taken:
                self.pieces.append((part, part.sent, taken))
                part.sent += taken
                room -= taken
        return before - room

    def fail(self, error: ServeLensError) -> None:
        """Tell every part."""
        for part, *_ in self.pieces:
            if not part.done.done():
                part.done.set_exception(error)


class Session:
    """One explanation's rows and answers. `sentinel` is the row it explains."""

    def __init__(self, batcher: Batcher, sentinel: Rows, budget: Budget, lane: str) -> None:
        self._batcher, self.sentinel, self.budget, self.lane = batcher, sentinel, budget, lane
        self._model: int | None = None
        self._changed = False
        self.prediction: Array | None = None
        self.rows = self.sent = self.calls = 0

    async def ask(self, rows: Rows, keep: bool = False) -> Array:
        """Outputs of rows, (rows, outputs) float64; with `keep` they are cached for a while.

        Raises UpstreamError and its kin, DeadlineExceeded, UpstreamChanged, Overloaded.
        """
        self._spend(len(rows))
        first, inverse = distinct(rows)
        wanted = rows.mixed(rows.matrix[first])
        self._batcher.saved("duplicate", len(rows) - len(first))
        keys = wanted.keys() if keep else []
        found = self._cached(keys)
        missing = np.array([at for at in range(len(wanted)) if at not in found], np.intp)
        answers: dict[int, Array] = found
        if len(missing):
            asked = wanted.mixed(wanted.matrix[missing]) if found else wanted
            outputs = await self._fetch(asked)
            if not found and not keep:
                return outputs[inverse]
            answers = found | dict(zip(missing.tolist(), outputs, strict=True))
            for at in missing.tolist() if keep else ():
                self._batcher.cache.put((self.lane, self._model, keys[at]), answers[at])
        return np.array([answers[at] for at in range(len(wanted))])[inverse]

    async def predict(self) -> Array:
        """The prediction for the explained row, (outputs,)."""
        if self.prediction is None:
            await self.ask(self.sentinel)
        if self.prediction is None:
            raise UpstreamChanged("the predictor's model changed while it was asked; ask again")
        return self.prediction

    def cost(self, seconds: float) -> Cost:
        """What has been used so far."""
        return Cost(self.rows, self.sent, self.calls, seconds)

    def _spend(self, rows: int) -> None:
        if self.rows + rows > self.budget.rows:
            raise Overloaded(f"an explanation may look at {self.budget.rows} rows; raise max_rows, or ask for less")
        self.rows += rows

    def _cached(self, keys: Sequence[bytes]) -> dict[int, Array]:
        model = self._model if self._model is not None else self._batcher.newest.get(self.lane)
        if model is None:
            return {}
        found = {
            at: outputs
            for at, key in enumerate(keys)
            if (outputs := self._batcher.cache.get((self.lane, model, key))) is not None
        }
        if found:
            self._model = model
            self._batcher.saved("cached", len(found))
        return found

    async def _fetch(self, rows: Rows) -> Array:
        part = _Part(self, rows, asyncio.get_running_loop().create_future())
        self._batcher.submit(part)
        try:
            async with asyncio.timeout(self.budget.left()):
                await part.done
        except TimeoutError:
            raise DeadlineExceeded("the predictor did not answer within the deadline; allow more time") from None
        finally:
            part.done.cancel()
        self._check()
        return part.outputs[0] if len(part.outputs) == 1 else np.concatenate(part.outputs)

    def _check(self) -> None:
        if self._changed:
            raise UpstreamChanged(
                "the predictor gave two answers to the same row: a rollout or canary; ask again when it is over"
            )

    def note(self, model: int, prediction: Array, sent: int) -> None:
        """A batch was answered by that model; `sent` of its rows were ours."""
        self.calls += 1
        self.sent += sent
        if self._model is None:
            self._model = model
        if self.prediction is None:
            self.prediction = prediction
        self._changed |= model != self._model or not alike(prediction, self.prediction)

    def fill(self, part: _Part, start: int, outputs: Array) -> None:
        """The answer to some of a part's rows, which may come in any order."""
        if part.done.done():
            return
        if not part.outputs:
            part.outputs.append(np.empty((len(part.rows), outputs.shape[1])))
        part.outputs[0][start : start + len(outputs)] = outputs
        part.answered += len(outputs)
        if part.answered == len(part.rows):
            part.done.set_result(None)


def alike(left: Array, right: Array) -> bool:
    """Whether two outputs may be one model's for one row."""
    return left.shape == right.shape and np.allclose(left, right, rtol=TOLERANCE, atol=1e-7)


def distinct(rows: Rows) -> tuple[Array, Array]:
    """Positions of the distinct rows, and for each row which of them it is."""
    matrix = np.ascontiguousarray(rows.matrix + 0.0)  # -0.0 and 0.0 are one value
    whole = matrix.view(np.dtype((np.void, matrix.itemsize * matrix.shape[1]))).reshape(-1)
    _, first, inverse = np.unique(whole, return_index=True, return_inverse=True)
    return first, inverse.reshape(-1)
