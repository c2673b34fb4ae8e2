"""The tap beside its peers: direct, tap measuring only, tap capturing both bodies, nginx `proxy_pass` where installed.

`python tests/bench/bench_tap.py`. Interleaved rounds, medians; requests per second and latency as ratios to direct or
nginx, and the forwarder's own CPU time a request, which two shared cores distort least. About 20 seconds.
"""

import argparse
import asyncio
import multiprocessing
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import uvloop

from logger.capture import ACK, FrameReader

REQUEST = (
    b"POST /v1/models/income:predict HTTP/1.1\r\nhost: localhost\r\nuser-agent: bench\r\naccept: */*\r\n"
    b"content-type: application/json\r\nx-request-id: 7f3c1d\r\ncontent-length: %d\r\n\r\n%b"
)
RESPONSE = (
    b"HTTP/1.1 200 OK\r\ndate: Mon, 01 Jan 2024 00:00:00 GMT\r\nserver: uvicorn\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
)
NGINX = """worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log /dev/null;
events {{ worker_connections 1024; }}
http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; keepalive_requests 1000000000;
  upstream u {{ server 127.0.0.1:{upstream}; keepalive 64; }}
  server {{ listen 127.0.0.1:{port};
    location / {{ proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection ""; }} }} }}"""


class _Server(asyncio.Protocol):
    def __init__(self, request: int, response: bytes) -> None:
        self._request, self._response, self._got = request, response, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._length = 0

    def data_received(self, data: bytes) -> None:
        # Requests of one size; nginx rewrites the head, so the first one tells that size.
        if not self._length:
            self._length = data.find(b"\r\n\r\n") + 4 + self._request
        self._got += len(data)
        while self._got >= self._length:
            self._got -= self._length
            self._transport.write(self._response)  # type: ignore[attr-defined]


class _Load(asyncio.Protocol):
    def __init__(self, request: bytes, response: int, until: float, seconds: list[float]) -> None:
        self._request, self._response, self._until, self._seconds = request, response, until, seconds
        self._got = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._length = transport, 0
        self._send()

    def _send(self) -> None:
        self._started = time.perf_counter()
        self._transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if not self._length:
            self._length = data.find(b"\r\n\r\n") + 4 + self._response
        self._got += len(data)
        if self._got < self._length:
            return
        self._got = 0
        now = time.perf_counter()
        self._seconds.append(now - self._started)
        if now < self._until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.done.set_result(None)


async def _serve(listener: socket.socket, request: int, response: bytes) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: _Server(request, response), sock=listener)
    await server.serve_forever()


async def _record(path: Path) -> None:
    """A recorder that commits everything at once."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = FrameReader()
        while data := await reader.read(1 << 18):
            last = [number for number, _ in frames.feed(data)]
            if last:
                writer.write(ACK.pack(last[-1]))

    server = await asyncio.start_unix_server(client, path)
    await server.serve_forever()


async def _load(port: int, request: bytes, response: int, connections: int, seconds: float) -> list[float]:
    loop, took, until = asyncio.get_running_loop(), list[float](), time.perf_counter() + seconds
    made = [
        await loop.create_connection(lambda: _Load(request, response, until, took), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await asyncio.gather(*(protocol.done for _, protocol in made))
    return took


def _run(main: object) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)  # type: ignore[arg-type]


def _serve_process(listener: socket.socket, request: int, response: bytes) -> None:
    _run(_serve(listener, request, response))


def _record_process(path: Path) -> None:
    _run(_record(path))


def _listener() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.set_inheritable(True)
    return listener


@contextmanager
def _process(target: object, *arguments: object) -> Iterator[None]:
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


@contextmanager
def _tap(upstream: int, folder: Path, *more: str) -> Iterator[tuple[int, psutil.Process]]:
    with _listener() as listener:
        command = [sys.executable, "-m", "logger.tap", "--listen-fd", str(listener.fileno())]
        command += ["--upstream", f"127.0.0.1:{upstream}", "--namespace", "n", "--inference-service", "i", *more]
        metrics = folder / "metrics"
        metrics.mkdir(exist_ok=True)
        process = subprocess.Popen(
            command, pass_fds=[listener.fileno()], stdin=subprocess.PIPE, env={"PROMETHEUS_MULTIPROC_DIR": str(metrics)}
        )
        try:
            yield listener.getsockname()[1], psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait()
            process.stdin.close()  # type: ignore[union-attr]


@contextmanager
def _nginx(upstream: int, folder: Path) -> Iterator[tuple[int, psutil.Process]]:
    with _listener() as free:
        port = free.getsockname()[1]
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, upstream=upstream, port=port))
    process = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")])
    try:
        time.sleep(0.5)
        yield port, psutil.Process(process.pid).children()[0]
    finally:
        process.terminate()
        process.wait()


def _cpu(process: psutil.Process | None) -> float:
    times = process.cpu_times() if process is not None else None
    return times.user + times.system if times is not None else 0.0


def main(argv: list[str] | None = None) -> int:
    """Run it and print one line a contestant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each round of each contestant")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--request-bytes", type=int, default=1024)
    parser.add_argument("--response-bytes", type=int, default=128)
    options = parser.parse_args(argv)
    request = REQUEST % (options.request_bytes, b"x" * options.request_bytes)
    response = RESPONSE % (options.response_bytes, b"y" * options.response_bytes)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(_listener())
        upstream = server.getsockname()[1]
        stack.enter_context(_process(_serve_process, server, options.request_bytes, response))
        stack.enter_context(_process(_record_process, folder / "capture.sock"))
        logging = ["--capture-socket", str(folder / "capture.sock"), "--accounts", str(folder / "accounts")]
        contestants: dict[str, tuple[int, psutil.Process | None]] = {
            "direct": (upstream, None),
            "tap, logging off": stack.enter_context(_tap(upstream, folder)),
            "tap, both bodies": stack.enter_context(_tap(upstream, folder, *logging)),
        }
        if shutil.which("nginx"):
            contestants["nginx"] = stack.enter_context(_nginx(upstream, folder))
        time.sleep(1.0)
        rates: dict[str, list[tuple[float, float, float]]] = {name: [] for name in contestants}
        for _ in range(options.rounds):
            for name, (port, process) in contestants.items():
                before = _cpu(process)
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    load = _load(port, request, options.response_bytes, options.connections, options.seconds)
                    took = sorted(runner.run(load))
                spent = (_cpu(process) - before) / len(took)
                rates[name].append((len(took) / options.seconds, took[int(len(took) * 0.99)] * 1e3, spent * 1e6))
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in rates.items()}
    peer = "nginx" if "nginx" in medians else "direct"
    if peer == "direct":
        print("nginx not installed; ratios are to direct")
    for name, (rate, p99, cpu) in medians.items():
        ratio = rate / medians[peer][0]
        print(f"{name:18} {rate:8.0f}/s  {ratio:5.2f} of {peer}  p99 {p99:6.2f} ms  own CPU {cpu:5.1f} µs a request")
    return 0


if __name__ == "__main__":
    sys.exit(main())
