"""One explanation's view of the predictor: asks about rows, in any number of parts, and sees one model only.

Apart from `batching`, which sends the parts of many sessions together. A session notices when another model answers:
the row it explains rides in every call as a sentinel, and two answers to it end the session with UpstreamChanged.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from explainers.budget import Budget
from explainers.cache import Cache
from explainers.coding import Array, Rows
from explainers.explanation import Cost
from servelens.contract.errors import DeadlineExceeded, TooLarge, UpstreamChanged

TOLERANCE: Final = 1e-5  # relative: batches of other sizes round otherwise
FLOOR: Final = 1e-6  # of the largest output of a batch: what a float32 sum near zero may be off by


@dataclass(eq=False, slots=True)
class Part:
    """Distinct rows of one session; `sent` of them are on their way, `answered` are back in `outputs`."""

    session: "Session"
    rows: Rows
    done: asyncio.Future[None]
    outputs: Array = field(default_factory=lambda: np.empty((0, 0)))
    sent: int = 0
    answered: int = 0

    @property
    def left(self) -> int:
        """Rows to be sent; none once nobody waits for them."""
        return 0 if self.done.done() else len(self.rows) - self.sent

    def fill(self, start: int, outputs: Array) -> None:
        """The answer to some of the rows, which may come in any order."""
        if self.done.done():
            return
        if not self.answered:
            self.outputs = np.empty((len(self.rows), outputs.shape[1]))
        self.outputs[start : start + len(outputs)] = outputs
        self.answered += len(outputs)
        if self.answered == len(self.rows):
            self.done.set_result(None)


class Queue(Protocol):
    """Where a session's parts go."""

    cache: Cache

    def submit(self, part: Part) -> None:
        """Queue a part; Overloaded if too many rows wait."""

    def newest(self, lane: str) -> int | None:
        """The model that answered last."""

    def saved(self, reason: str, rows: int) -> None:
        """Count rows that need not be sent."""


class Session:
    """`sentinel` is the row that is explained; `authorization` the caller's, where it is forwarded, else empty."""

    def __init__(self, queue: Queue, sentinel: Rows, budget: Budget, authorization: str = "") -> None:
        self._queue, self.sentinel, self.budget, self.authorization = queue, sentinel, budget, authorization
        # Callers are told apart by a digest: what is kept for a while must not be a secret.
        self.lane = hashlib.sha256(authorization.encode()).hexdigest() if authorization else ""
        self._model: int | None = None
        self._changed = False
        self._prediction: Array | None = None
        self.rows = self.sent = self.calls = 0

    async def ask(self, rows: Rows, keep: bool = False) -> Array:
        """Outputs of rows, (rows, outputs) float64; with `keep` they are cached for a while.

        Raises UpstreamError and its kin, DeadlineExceeded, UpstreamChanged, Overloaded, TooLarge.
        """
        self._spend(len(rows))
        first, inverse = distinct(rows)
        wanted = rows.mixed(rows.matrix[first])
        self._queue.saved("duplicate", len(rows) - len(first))
        if not keep:
            return (await self._fetch(wanted))[inverse]
        return (await self._kept(wanted))[inverse]

    async def _kept(self, wanted: Rows) -> Array:
        """Outputs of distinct rows, from the cache where it has them."""
        keys = wanted.keys()
        answers = self._cached(keys)
        missing = [at for at in range(len(wanted)) if at not in answers]
        if missing:
            outputs = await self._fetch(wanted.mixed(wanted.matrix[missing]))
            for at, output in zip(missing, outputs, strict=True):
                answers[at] = output
                self._queue.cache.put((self.lane, self._model, keys[at]), output)
        return np.array([answers[at] for at in range(len(wanted))])

    async def predict(self) -> Array:
        """The prediction for the explained row, (outputs,)."""
        if self._prediction is None:
            await self.ask(self.sentinel)
        if self._prediction is None:
            raise UpstreamChanged("the predictor's model changed while it was asked; ask again")
        return self._prediction

    def cost(self, seconds: float) -> Cost:
        """What has been used so far."""
        return Cost(self.rows, self.sent, self.calls, seconds)

    def _spend(self, rows: int) -> None:
        if self.rows + rows > self.budget.rows:
            problem = (
                f"of explainer.yaml lets an explanation look at {self.budget.rows} rows; raise it, or ask for less"
            )
            raise TooLarge("max_rows", problem)
        self.rows += rows

    def _cached(self, keys: Sequence[bytes]) -> dict[int, Array]:
        model = self._model if self._model is not None else self._queue.newest(self.lane)
        if model is None:
            return {}
        found = {
            at: outputs
            for at, key in enumerate(keys)
            if (outputs := self._queue.cache.get((self.lane, model, key))) is not None
        }
        if found:
            self._model = model
            self._queue.saved("cached", len(found))
        return found

    async def _fetch(self, rows: Rows) -> Array:
        part = Part(self, rows, asyncio.get_running_loop().create_future())
        self._queue.submit(part)
        try:
            async with asyncio.timeout(self.budget.left()):
                await part.done
        except TimeoutError:
            raise DeadlineExceeded("the predictor did not answer within the deadline; allow more time") from None
        finally:
            part.done.cancel()
        if self._changed:
            problem = "the predictor gave two answers to the same row: a rollout or canary"
            raise UpstreamChanged(f"{problem}; ask again when it is over")
        return part.outputs

    def note(self, model: int, prediction: Array, sent: int, scale: float) -> None:
        """A batch was answered by that model; `sent` of its rows were ours, `scale` is its largest output."""
        self.calls += 1
        self.sent += sent
        if self._model is None:
            self._model = model
        if self._prediction is None:
            self._prediction = prediction
        self._changed |= model != self._model or not alike(prediction, self._prediction, scale)


def alike(left: Array, right: Array, scale: float) -> bool:
    """Whether two outputs may be one model's for the same rows; `scale` is the largest output seen beside them."""
    return left.shape == right.shape and np.allclose(left, right, rtol=TOLERANCE, atol=FLOOR * scale)


def distinct(rows: Rows) -> tuple[Array, Array]:
    """Positions of the distinct rows, and for each row which of them it is."""
    matrix = np.ascontiguousarray(rows.matrix + 0.0)  # -0.0 and 0.0 are one value
    whole = matrix.view(np.dtype((np.void, matrix.itemsize * matrix.shape[1]))).reshape(-1)
    _, first, inverse = np.unique(whole, return_index=True, return_inverse=True)
    return first, inverse.reshape(-1)
