"""The bridge: events a second over kept connections, and over a connection for each, as KServe's agent posts them.

Beside it in the same rounds a bare application on the same server, which answers 202 to every post and keeps nothing:
what HTTP alone costs. `python tests/bench/logger/bench_bridge.py [SECONDS [ROUNDS]]`; a table, medians over the rounds.
An event is a request of 4 KiB in binary mode; it counts once it is answered with 202, and at the end of each round all
of them must be in Kafka.
"""

import asyncio
import multiprocessing
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2]), str(Path(__file__).parents[3])]

import psutil  # noqa: E402
import uvicorn  # noqa: E402
import uvloop  # noqa: E402
from brokers import broker  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import track  # noqa: E402
from tables import markdown  # noqa: E402
from whole_logger import whole_logger  # noqa: E402

CONNECTIONS = 16
BODY = b'{"instances": [[%s]]}' % b", ".join(b"%.4f" % (number / 7) for number in range(480))
HEAD = (
    b"POST / HTTP/1.1\r\nhost: bridge\r\ncontent-type: application/json\r\nce-specversion: 1.0\r\nce-id: %s\r\n"
    b"ce-source: http://localhost:9081/\r\nce-type: org.kubeflow.serving.inference.request\r\n"
    b"ce-time: 2026-11-25T10:00:00.123456Z\r\nce-recordedtime: 2026-11-25T10:00:00.2Z\r\n"
    b"ce-inferenceservicename: iris\r\nce-namespace: default\r\nce-component: predictor\r\nce-endpoint: \r\n"
    b"ce-metadata: {}\r\ncontent-length: %d\r\n\r\n"
)
KEPT, EACH = "kept connections", "a connection an event"


@dataclass(frozen=True)
class Figure:
    """One round of one contestant: events answered a second, the server's CPU µs an event, errors."""

    rate: float
    cpu: float
    errors: int


class _Sender(asyncio.Protocol):
    """Posts, waits for the answer, posts again: over this connection, or another one."""

    def __init__(self, run: "_Load") -> None:
        self._run, self._got = run, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._post()

    def _post(self) -> None:
        self._run.number += 1
        head = HEAD % (b"%d-%d" % (self._run.seed, self._run.number), len(BODY))
        self.transport.write(head + BODY)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._got += data
        if not self._got.endswith(b"}"):  # the head alone
            return
        good, self._got = self._got.startswith(b"HTTP/1.1 202"), b""
        self._run.answered += good
        self._run.errors += not good
        if time.perf_counter() > self._run.until:
            self.transport.close()
            self._run.ended()
        elif self._run.kept:
            self._post()
        else:
            self.transport.close()
            self._run.connect()


class _Load:
    def __init__(self, port: int, kept: bool, seconds: float, seed: int) -> None:
        self.port, self.kept, self.seconds, self.seed = port, kept, seconds, seed
        self.number = self.answered = self.errors = 0
        self._open, self._done = CONNECTIONS, asyncio.Event()
        self._tasks: set[asyncio.Task[object]] = set()

    def connect(self) -> None:
        task = asyncio.get_running_loop().create_task(self._connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: _Sender(self), "127.0.0.1", self.port)

    def ended(self) -> None:
        self._open -= 1
        if not self._open:
            self._done.set()

    async def go(self) -> tuple[int, int, float]:
        began = time.perf_counter()
        self.until = began + self.seconds
        for _ in range(CONNECTIONS):
            self.connect()
        await asyncio.wait_for(self._done.wait(), self.seconds + 30)
        return self.answered, self.errors, time.perf_counter() - began


def _load(pipe: Connection) -> None:
    while (ask := pipe.recv()) is not None:
        pipe.send(uvloop.run(_Load(*ask).go()))


async def _bare(scope: dict[str, object], receive: Callable[..., object], send: Callable[..., object]) -> None:
    while (await receive()).get("more_body"):  # type: ignore[misc]
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"14")]
    await send({"type": "http.response.start", "status": 202, "headers": headers})  # type: ignore[misc]
    await send({"type": "http.response.body", "body": b'{"accepted":1}'})  # type: ignore[misc]


def _serve_bare(bound: socket.socket) -> None:
    config = uvicorn.Config(
        _bare, log_config=None, access_log=False, lifespan="off", server_header=False, date_header=False  # type: ignore[arg-type]
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[bound])


@contextmanager
def bare() -> Iterator[tuple[int, int]]:
    """Port and process id of the bare application."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as bound:
        process = multiprocessing.get_context("fork").Process(target=_serve_bare, args=(bound,), daemon=True)
        process.start()
        assert process.pid is not None
        yield bound.getsockname()[1], process.pid
        process.kill()
        process.join()


def cpu(pid: int) -> float:
    """CPU seconds of a process, without its children."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def main() -> int:
    """Print the table; 1 if an event that was answered is not in Kafka."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    ours, theirs = multiprocessing.get_context("fork").Pipe()
    loader = multiprocessing.get_context("fork").Process(target=_load, args=(theirs,), daemon=True)
    loader.start()
    found: dict[tuple[str, str], list[Figure]] = {}
    console, arrived = Console(stderr=True), True
    with tempfile.TemporaryDirectory(prefix="sl-bridge-") as name, bare() as (bare_port, bare_pid):
        folder = Path(name)
        with broker(folder / "kafka") as kafka:
            given = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--spool", str(folder / "spool"),
                     "--kafka", kafka.address, "--topic-prefix", "bench", "--spool-bytes", "4GiB"]  # fmt: skip
            with whole_logger(folder, *given, service="bridge") as bridge:
                shipper = bridge.account()["processes"]["shipper"]
                sides = {"bridge": (bridge.port, bridge.process.pid), "bare": (bare_port, bare_pid)}
                for number in track(range(rounds), "rounds", console=console):
                    for kind in (KEPT, EACH):
                        for side in sorted(sides, reverse=bool(number % 2)):
                            port, pid = sides[side]
                            before = cpu(pid)
                            ours.send((port, kind == KEPT, seconds, len(found) * 1000 + number))
                            answered, errors, took = ours.recv()
                            spent = (cpu(pid) - before) / max(1, answered) * 1e6
                            found.setdefault((side, kind), []).append(Figure(answered / took, spent, errors))
                        bridge.wait_shipped(bridge.account()["offered"])
                account = bridge.account()
                arrived = account["adds_up"] and account["shipped"] == account["offered"]
                shipping = cpu(shipper) / account["shipped"] * 1e6
    ours.send(None)
    Console().print(_table(found, kafka.name, len(BODY)), markup=False, soft_wrap=True)
    total = (
        f"{account['offered']:,} offered, {account['shipped']:,} in Kafka; the shipper took {shipping:.0f} µs an event"
    )
    Console().print(total, markup=False, soft_wrap=True)
    return 0 if arrived else 1


def _table(found: dict[tuple[str, str], list[Figure]], kafka: str, body: int) -> str:
    rows = []
    for kind in (KEPT, EACH):
        ratios = [
            ours.rate / theirs.rate for ours, theirs in zip(found["bridge", kind], found["bare", kind], strict=True)
        ]
        cells = [f"{statistics.median(one.rate for one in found[side, kind]):,.0f}" for side in ("bridge", "bare")]
        cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})")
        cells += [f"{statistics.median(one.cpu for one in found[side, kind]):.0f}" for side in ("bridge", "bare")]
        cells.append(str(sum(one.errors for side in ("bridge", "bare") for one in found[side, kind])))
        rows.append([kind, *cells])
    headings = [f"{body:,}-byte events, {CONNECTIONS} senders, {kafka}", "bridge/s", "bare 202/s", "ratio",
                "bridge µs CPU", "bare µs CPU", "errors"]  # fmt: skip
    return markdown(headings, rows)


if __name__ == "__main__":
    sys.exit(main())
