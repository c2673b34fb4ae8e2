"""Copies of responses, looked at a few at a time: Python is twice as fast at it between system calls than among them.

Apart from `sight`, which looks. Requests are looked at as they come, so that every exchange whose answer a client may
have is in the account before that answer; what is looked at late is only what became of it, as of when it passed.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

COUNT: Final = 32  # copies that wait at most
BYTES: Final = 256 << 10
SECONDS: Final = 0.001


class Later:
    """A queue of (who looks, at what, since when); `clock_ns` is monotonic."""

    __slots__ = ("_at", "_clock", "_copies", "_scheduled", "_size")

    def __init__(self, clock_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        self._clock, self._at = clock_ns, 0
        self._copies: list[tuple[Callable[[bytes], None], bytes, int]] = []
        self._size, self._scheduled = 0, False

    def tick(self) -> int:
        """Nanoseconds of the monotonic clock: now, or when the copy being looked at passed."""
        return self._at or self._clock()

    def add(self, look: Callable[[bytes], None], data: bytes) -> None:
        """Have `look` see `data` within a millisecond or so, after all that was added before."""
        self._copies.append((look, data, self._clock()))
        self._size += len(data)
        if len(self._copies) >= COUNT or self._size >= BYTES:
            self.flush()
        elif not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_later(SECONDS, self._due)

    def flush(self) -> None:
        """Look at all that waits, now."""
        copies, self._copies, self._size = self._copies, [], 0
        for look, data, self._at in copies:
            look(data)
        self._at = 0

    def _due(self) -> None:
        self._scheduled = False
        self.flush()
