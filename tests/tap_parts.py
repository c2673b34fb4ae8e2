"""What stands around a tap in its tests: predictors that follow a script, a recorder's end, and the tap itself."""

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import uvloop
from prometheus_client import CollectorRegistry

from logger.account import TapCounts, read_account
from logger.capture import ACK, FrameReader, decode
from logger.tap import Tap, TapSettings
from logger.upstream import Upstream
from servelens.contract.events import Exchange

SERVICE = {"namespace": "ns", "inferenceservice": "income", "component": "predictor"}


def until(true: Callable[[], object], what: str = "", seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.005)


class Predictor:
    """A server, TCP or at `path`; each connection is served by `script(socket, number)` in a thread, then closed."""

    def __init__(self, script: Callable[[socket.socket, int], None], path: Path | None = None) -> None:
        if path is None:
            self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
            self.port: int = self._listener.getsockname()[1]
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(path))
            self._listener.listen()
        self._script = script
        self.errors: list[BaseException] = []
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection, self.connections), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        connection.settimeout(20)
        if connection.family == socket.AF_INET:
            at_once(connection)
        with connection:
            try:
                self._script(connection, number)
            except BaseException as error:  # noqa: BLE001  a thread's top: the test looks at it
                self.errors.append(error)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def __enter__(self) -> "Predictor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        assert self.errors == []


def read_exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(min(size - len(data), 1 << 18))
        assert piece, f"end after {len(data)} of {size} bytes"
        data += piece
    return bytes(data)


def at_once(connection: socket.socket) -> None:
    """No waiting for the acknowledgement of the piece before."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def read_head(connection: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += read_exactly(connection, 1)
    return data


def read_all(connection: socket.socket) -> bytes:
    data = b""
    while piece := connection.recv(1 << 16):
        data += piece
    return data


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


def answering(response: bytes = OK) -> Callable[[socket.socket, int], None]:
    """A script: the same response to every request that has no body."""

    def script(connection: socket.socket, _: int) -> None:
        data = b""
        while piece := connection.recv(1 << 16):
            data += piece
            while b"\r\n\r\n" in data:
                data = data.partition(b"\r\n\r\n")[2]
                connection.sendall(response)

    return script


class RecorderEnd:
    """The recorder's end of the capture socket: keeps what it commits, whatever else happens to it.

    `committing` False: frames are read and never committed, as by a recorder killed before its commit.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.committing = True
        self.frames: dict[str, list[bytes]] = {}
        self.received: list[int] = []
        self.connections = 0
        self._listener: socket.socket | None = None
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()

    def start(self) -> "RecorderEnd":
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                if self._listener is not listener:  # killed meanwhile
                    connection.close()
                    return
                self.connections += 1
                self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        reader, stream, unsaved = FrameReader(), "", list[bytes]()
        with contextlib.suppress(OSError):
            while data := connection.recv(1 << 16):
                for number, payload in reader.feed(data):
                    if number == 0:
                        stream = orjson.loads(payload)["stream"]
                    else:
                        self.received.append(number)
                        unsaved.append(payload)
                saved = self.frames.setdefault(stream, [])
                if self.committing:
                    saved += unsaved
                    unsaved.clear()
                connection.sendall(ACK.pack(len(saved)))

    def kill(self) -> None:
        with self._lock:
            listener, self._listener = self._listener, None
            connections, self._open = self._open, []
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    @property
    def count(self) -> int:
        return sum(map(len, self.frames.values()))

    @property
    def exchanges(self) -> list[Exchange]:
        return [decode(payload) for frames in self.frames.values() for payload in frames]

    def __enter__(self) -> "RecorderEnd":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


class LocalTap:
    """A tap on its own uvloop in a thread: its registry, budget and account can be looked at."""

    def __init__(self, upstream: int | Upstream, folder: Path | None = None, **settings: Any) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.registry = CollectorRegistry()
        if folder is not None:
            settings |= {"capture_socket": folder / "capture.sock", "accounts": folder / "taps"}
        settings = {"connect_timeout": 2.0, "drain_seconds": 2.0} | settings
        where = upstream if isinstance(upstream, Upstream) else Upstream("127.0.0.1", upstream)
        self._settings = TapSettings(where, "ns", "income", **settings)
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self.tap = Tap(self._settings, self._listener, self.registry)
        await self.tap.start()
        self._ready.set()
        await self._stop.wait()
        await self.tap.stop()

    def on_loop(self, call: Callable[[], Any]) -> Any:
        async def run() -> Any:
            return call()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def counts(self) -> TapCounts:
        assert self.tap.account is not None
        return self.tap.account.counts()

    def metric(self, name: str, **labels: str) -> float:
        self.on_loop(self.tap.publish)
        return self.registry.get_sample_value(name, SERVICE | labels) or 0.0

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(15)
        assert not self._thread.is_alive()
        self._listener.close()

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        at_once(connection)
        return connection

    def __enter__(self) -> "LocalTap":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class TapProcess:
    """The tap as the parent starts it."""

    def __init__(self, listener: socket.socket, upstream: int, folder: Path, *flags: str) -> None:
        self.accounts = folder / "taps"
        metrics = folder / "metrics"
        metrics.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "logger.tap",
                "--listen-fd", str(listener.fileno()),
                "--upstream", f"127.0.0.1:{upstream}",
                "--capture-socket", str(folder / "capture.sock"),
                "--accounts", str(self.accounts),
                "--namespace", "ns",
                "--inference-service", "income",
                *flags,
            ],
            pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE,
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(metrics)},
        )  # fmt: skip

    def account(self) -> tuple[TapCounts, bool]:
        until(lambda: list(self.accounts.glob(f"*-{self.process.pid}.account")), "an account file")
        (path,) = self.accounts.glob(f"*-{self.process.pid}.account")
        return read_account(path)


@contextmanager
def tap_process(upstream: int, folder: Path, *flags: str) -> Iterator[tuple[TapProcess, int]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tap = TapProcess(listener, upstream, folder, *flags)
        try:
            yield tap, listener.getsockname()[1]
        finally:
            tap.process.kill()
            tap.process.wait()
            assert tap.process.stdin is not None
            tap.process.stdin.close()
