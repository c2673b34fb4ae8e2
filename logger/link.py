"""The tap's side of the recorder's socket: every frame kept until it is committed, none waited for.

The protocol stands in `capture`. Apart from the tap so that the recorder's life and death never touch a connection:
frames queue here within the memory budget, are sent as fast as the socket takes them, and sent again to a recorder
that came back from the first one it has not committed.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

from logger.budget import Budget
from logger.capture import ACK, FRAME_HEAD, hello

log = logging.getLogger(__name__)

# Seconds a frame may wait for others: a system call for each would cost more than all else that is done for it.
GATHER_SECONDS: Final = 0.002
FIRST_BACK_OFF: Final = 0.05  # seconds
LAST_BACK_OFF: Final = 1.0
_BATCH_BYTES: Final = 256 << 10  # written at a time
_FRAME_COST: Final = FRAME_HEAD.size + 96  # the head, the objects around it and their place in the queue


class _Recorder(asyncio.Protocol):
    """One connection to a recorder. Nothing is sent before its first word, which says where to go on."""

    def __init__(self, link: "Link") -> None:
        self._link, self._buffer = link, b""
        self.greeted = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._link.greeting)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        whole = len(self._buffer) // ACK.size * ACK.size
        if not whole:
            return
        # A later commit covers the earlier ones.
        (number,) = ACK.unpack_from(self._buffer, whole - ACK.size)
        self._buffer = self._buffer[whole:]
        self._link.committed(number, self.transport)
        if not self.greeted:
            self.greeted = True
            self._link.resume(self.transport)

    def pause_writing(self) -> None:
        self._link.pause()

    def resume_writing(self) -> None:
        if self.greeted:
            self._link.push(self.transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._link.pause()
        if not self.closed.done():
            self.closed.set_result(None)


class Link:
    """Frames of one tap, `stream` its name; `send` never blocks and never fails.

    A frame's memory comes from `budget`: whoever calls `send` has taken its `cost`, the commit gives it back.
    """

    def __init__(self, path: Path, stream: str, budget: Budget, on_error: Callable[[], None] = lambda: None) -> None:
        self._path, self._budget, self._on_error = path, budget, on_error
        self.greeting = hello(stream)
        self._acked = 0
        self._frames = deque[bytes]()  # payloads of the frames _acked + 1, _acked + 2, ...
        self._unsent = deque[bytes]()  # the last of them, not yet written to the present connection
        self._transport: asyncio.Transport | None = None  # while it takes more
        self._gathering = False
        self._empty = asyncio.Event()
        self._empty.set()
        self._back_off = FIRST_BACK_OFF

    @property
    def waiting(self) -> int:
        """Frames not yet committed."""
        return len(self._frames)

    def cost(self, payload: bytes) -> int:
        """The bytes of the budget a frame of this payload holds."""
        return len(payload) + _FRAME_COST

    def send(self, payload: bytes) -> None:
        """Take over the next frame."""
        self._frames.append(payload)
        self._unsent.append(payload)
        self._empty.clear()
        if self._transport is not None and not self._gathering:
            self._gathering = True
            asyncio.get_running_loop().call_later(GATHER_SECONDS, self._gathered)

    async def run(self) -> None:
        """Stay connected until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(OSError):
                _, recorder = await loop.create_unix_connection(lambda: _Recorder(self), str(self._path))
                await self._until_closed(recorder)
            await asyncio.sleep(self._back_off)
            self._back_off = min(2 * self._back_off, LAST_BACK_OFF)

    async def flush(self) -> None:
        """Return when every frame is committed."""
        await self._empty.wait()

    async def _until_closed(self, recorder: _Recorder) -> None:
        try:
            await recorder.closed
        finally:
            recorder.transport.abort()
        log.warning("the recorder is gone", extra={"waiting": self.waiting})

    # What a connection reports.

    def committed(self, number: int, transport: asyncio.Transport) -> None:
        """All frames up to `number` are in the spool."""
        if number > self._acked + len(self._frames):
            log.error("the recorder commits a frame it was never sent", extra={"frame": number})
            self._on_error()
            transport.abort()
            return
        for _ in range(self._acked, number):
            self._budget.give(self.cost(self._frames.popleft()))
        self._acked = max(self._acked, number)
        if not self._frames:
            self._empty.set()

    def resume(self, transport: asyncio.Transport) -> None:
        """A recorder is there: send it all that is not committed."""
        self._back_off, self._unsent = FIRST_BACK_OFF, self._frames.copy()
        self.push(transport)

    def push(self, transport: asyncio.Transport) -> None:
        """The connection takes more."""
        self._transport = transport
        while self._unsent and self._transport is not None:
            transport.writelines(self._batch())

    def pause(self) -> None:
        """The connection takes no more, or is gone."""
        self._transport = None

    def _gathered(self) -> None:
        self._gathering = False
        if self._transport is not None:
            self.push(self._transport)

    def _batch(self) -> list[bytes]:
        number = self._acked + len(self._frames) - len(self._unsent)
        parts, size = list[bytes](), 0
        while self._unsent and size < _BATCH_BYTES:
            number += 1
            payload = self._unsent.popleft()
            parts += (FRAME_HEAD.pack(len(payload), number), payload)
            size += len(payload)
        return parts
