"""The tap's end of the capture socket, in a test's hand: an account file, numbered frames, and sending again."""

import contextlib
import select
import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from logger import capture
from logger.account import AccountFile
from servelens.contract.events import Exchange, Half
from servelens.contract.identity import new_exchange_id


def exchange(path: str = "/v2/models/iris/infer", body: bytes = b'{"inputs": []}', **parts: object) -> Exchange:
    whole: dict[str, object] = {
        "exchangeid": new_exchange_id(),
        "arrived_us": time.time_ns() // 1000,
        "method": "POST",
        "path": path,
        "status": 200,
        "protocol": "http/1.1",
        "duration_us": 900,
        "request": Half(body, len(body), content_type="application/json"),
        "response": Half(b'{"outputs": []}', 15, content_type="application/json"),
    }
    return Exchange(**(whole | parts))  # type: ignore[arg-type]


class TapEnd:
    """Keeps every frame until it is acknowledged; `pump` does whatever can be done within a time."""

    def __init__(self, socket_path: Path, accounts: Path, stream: str = "") -> None:
        self.stream = stream or "tap-" + uuid.uuid4().hex
        self.account = AccountFile(accounts, self.stream)
        self._path = socket_path
        self._frames: dict[int, bytes] = {}
        self._socket: socket.socket | None = None
        self._acks, self._out, self._sent, self._greeted = b"", b"", 0, False
        self.acked = 0

    def offer(self, *exchanges: Exchange) -> None:
        for one in exchanges:
            self.account.add("offered")
            self._frames[self.account.add("handed")] = capture.encode(one)

    @property
    def unacked(self) -> int:
        return len(self._frames)

    def pump(self, seconds: float = 0.05, until: Callable[[], bool] = lambda: False) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not until():
            try:
                self._connected()
                self._turn()
            except OSError:
                self.hang_up()
                time.sleep(0.01)

    def drain(self, seconds: float = 20.0) -> None:
        self.pump(seconds, until=lambda: not self._frames)
        assert not self._frames, f"{len(self._frames)} frames not acknowledged within {seconds} s"

    def _connected(self) -> None:
        if self._socket is None:
            link = socket.socket(socket.AF_UNIX)
            try:
                link.connect(str(self._path))
            except OSError:
                link.close()
                raise
            link.setblocking(False)
            self._socket, self._acks, self._sent, self._greeted = link, b"", 0, False
            self._out = capture.hello(self.stream)

    def _turn(self) -> None:
        assert self._socket is not None
        if self._greeted and len(self._out) < 1 << 18:
            for number in range(max(self._sent, self.acked) + 1, self.account.counts().handed + 1):
                self._out += capture.frame(number, self._frames[number])
                self._sent = number
                if len(self._out) > 1 << 18:
                    break
        readable, writable, _ = select.select([self._socket], [self._socket] if self._out else [], [], 0.005)
        if writable:
            self._out = self._out[self._socket.send(self._out) :]
        if readable:
            self._read()

    def _read(self) -> None:
        assert self._socket is not None
        data = self._socket.recv(4096)
        if not data:
            raise ConnectionResetError
        self._acks += data
        while len(self._acks) >= capture.ACK.size:
            (number,) = capture.ACK.unpack_from(self._acks)
            self._acks = self._acks[capture.ACK.size :]
            self._committed(number)

    def _committed(self, number: int) -> None:
        for gone in range(self.acked + 1, number + 1):
            del self._frames[gone]
        self.acked = max(self.acked, number)
        self._greeted = True

    def hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def die(self) -> None:
        """As by SIGKILL: the connection ends and the account's lock is free."""
        self.hang_up()
        with contextlib.suppress(OSError):
            self.account.close()
