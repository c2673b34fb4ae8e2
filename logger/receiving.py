"""The recorder's end of the capture socket: one connection from a tap, as `capture` describes it.

Apart from the recorder, which decides what becomes of frames; this only cuts them out of the stream and answers.
"""

import asyncio
import re
import socket
from pathlib import Path
from typing import Final, Protocol, cast

import orjson

from logger import capture
from servelens.contract.errors import StateError

_STREAM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")  # it names a file


class Taker(Protocol):
    """What a connection needs of the recorder."""

    def joined(self, receiver: "Receiver") -> None:
        """A new connection."""

    def left(self, receiver: "Receiver") -> None:
        """A connection has ended; all its bytes have been read."""

    def committed(self, stream: str) -> int | None:
        """The stream's last frame in the spool; None for a stream without account file, or settled."""

    def take(self, stream: str, number: int, payload: bytes) -> None:
        """One frame."""

    def failed(self, task: str, error: Exception) -> None:
        """Something went wrong at a task's top."""


class Receiver(asyncio.Protocol):
    """One connection from a tap."""

    def __init__(self, recorder: Taker) -> None:
        self._recorder, self._reader = recorder, capture.FrameReader()
        self.stream = ""
        self.silent = 0  # how often it was found without a hello
        self.closed = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for its hello."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without being derived from it
        self.closed = False
        self._recorder.joined(self)

    def data_received(self, data: bytes) -> None:
        """Frames, until one is not as it should be: then the connection ends and the tap sends again."""
        try:
            for number, payload in self._reader.feed(data):
                if self.closed:
                    return
                self._one(number, payload)
        except Exception as error:  # noqa: BLE001 - the top of a connection: counted, and the tap connects anew
            self._recorder.failed("recorder.receiver", error)
            self.close()

    def _one(self, number: int, payload: bytes) -> None:
        if number == 0:
            self._hello(payload)
        elif self.stream:
            self._recorder.take(self.stream, number, payload)
        else:
            raise StateError("a frame before the hello")

    def _hello(self, payload: bytes) -> None:
        stream = orjson.loads(payload)["stream"]
        committed = self._recorder.committed(stream) if _STREAM.fullmatch(stream) else None
        if committed is None:
            raise StateError(f"stream {stream[:64]!r} has no account file; give tap and recorder the same --accounts")
        self.stream = stream
        self.acknowledge(committed)

    def acknowledge(self, number: int) -> None:
        """Tell the tap what is committed."""
        if self._open():
            self._transport.write(capture.ACK.pack(number))

    def hold(self) -> None:
        """Read no more for now."""
        if self._open():
            self._transport.pause_reading()

    def release(self) -> None:
        """Read on."""
        if self._open():
            self._transport.resume_reading()

    def _open(self) -> bool:
        return not self.closed and not self._transport.is_closing()

    def close(self) -> None:
        """End the connection at once; what came on it and is not committed will come again."""
        if not self.closed:
            self._transport.abort()
        self.closed = True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        """The tap is gone or connects anew."""
        self.closed = True
        self._recorder.left(self)


def listen(path: Path) -> socket.socket:
    """The capture socket. Bound here and not by the event loop, which would unlink a successor's on closing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o660)
    listener.listen(128)
    listener.setblocking(False)
    return listener
