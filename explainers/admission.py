"""How many explanations run at once: a bounded number, a bounded queue behind it, and a refusal beyond that."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from explainers.budget import Budget
from servelens.contract.errors import DeadlineExceeded, Overloaded

QUEUE = 8  # requests that wait, for each that runs


class Admission:
    """`limit` requests run, `limit × QUEUE` wait; `watch(running, waiting)` hears of each change."""

    def __init__(self, limit: int, watch: Callable[[int, int], None] = lambda *_: None) -> None:
        self._free, self._limit, self._watch = asyncio.Semaphore(limit), limit, watch
        self._running = self._waiting = 0

    @asynccontextmanager
    async def admitted(self, budget: Budget) -> AsyncIterator[None]:
        """Wait for a place. Raises Overloaded at once if too many wait, DeadlineExceeded if none came free in time."""
        if self._waiting >= self._limit * QUEUE:
            raise Overloaded(f"{self._running} explanations run and {self._waiting} wait; ask again later")
        self._note(0, 1)
        try:
            async with asyncio.timeout(budget.left()):
                await self._free.acquire()
        except TimeoutError:
            raise DeadlineExceeded("no place within the deadline; ask again later, or allow more time") from None
        finally:
            self._note(0, -1)
        self._note(1, 0)
        try:
            yield
        finally:
            self._note(-1, 0)
            self._free.release()

    def _note(self, running: int, waiting: int) -> None:
        self._running += running
        self._waiting += waiting
        self._watch(self._running, self._waiting)
