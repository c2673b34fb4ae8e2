"""Client and predictor of the benchmark: raw uvloop protocols, each a process of its own, told what to do by a pipe.

Closed loop: each connection asks again as soon as it is answered; that is saturation, and its latency is mostly
queueing. Paced: arrivals are a Poisson process of a given rate, and a latency counts from when its request was due,
whether or not a connection was free then.
"""

import asyncio
import ctypes
import multiprocessing
import os
import random
import socket
import struct
import time
from abc import ABC, abstractmethod
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle
from multiprocessing.connection import Connection
from typing import Any, Self

import numpy as np
import psutil
import uvloop
from traffic import ANSWER, DIGITS, RESPONSE, SIZE, Traffic, traffic

GOOD = b"HTTP/1.1 200"
HEAD_END = b"\r\n\r\n"
TICK = 100e-6  # seconds between two looks at the schedule at least
PATIENCE = 30.0  # seconds the last answers may take


@dataclass(frozen=True)
class Ask:
    """One piece of work for the client. `rate` 0 is a closed loop; arrivals closer than `tick` seconds go together."""

    port: int
    traffic: str
    connections: int
    seconds: float
    rate: float = 0.0
    tick: float = TICK
    seed: int = 0


@dataclass
class Outcome:
    """Latencies in seconds, in the order of completion; `counts` of them in each second since the start."""

    seconds: float
    latencies: Any = field(default_factory=lambda: array("f"))
    counts: list[int] = field(default_factory=list)
    errors: int = 0
    client_cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Exchanges a second, over all of it."""
        return len(self.latencies) / self.seconds

    def quantile(self, share: float, since: int = 0, until: int | None = None) -> float:
        """A quantile in seconds of what completed in the seconds from `since` to `until`."""
        start = sum(self.counts[:since])
        end = len(self.latencies) if until is None else sum(self.counts[:until])
        part = np.frombuffer(self.latencies, dtype=np.float32)[start:end]
        return float(np.quantile(part, share)) if len(part) else float("nan")


class _Predictor(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._left, self._head = transport, 0, b""

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._left -= len(data)
        else:
            if self._head:
                data = self._head + data
            end = data.find(HEAD_END)
            if end < 0:
                self._head = data
                return
            self._head = b""
            at = data.find(SIZE, 0, end) + len(SIZE)
            self._left = end + len(HEAD_END) + int(data[at : at + DIGITS]) - len(data)
        if not self._left:
            self._transport.write(RESPONSE)  # type: ignore[attr-defined]


class _Client(asyncio.Protocol):
    def __init__(self, run: "_Closed | _Paced") -> None:
        self._run, self._got, self._length = run, 0, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def send(self, request: bytes, due: float) -> None:
        self._due = due
        self.transport.write(request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if not self._got:
            if not data.startswith(GOOD):
                self._run.outcome.errors += 1
                self.transport.close()
                return
            if not self._length:
                self._length = data.find(HEAD_END) + len(HEAD_END) + len(ANSWER)
        self._got += len(data)
        if self._got >= self._length:
            self._got = 0
            self._run.answered(self, self._due)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._run.lost(self)


class _Run(ABC):
    """What both ways of asking share."""

    def __init__(self, ask: Ask, requests: Traffic) -> None:
        self.ask, self.outcome = ask, Outcome(ask.seconds)
        self._next = cycle(requests.requests).__next__
        self._open = 0
        self._done = asyncio.Event()
        self._clients: list[_Client] = []

    async def go(self) -> Outcome:
        loop = asyncio.get_running_loop()
        for _ in range(self.ask.connections):
            _, client = await loop.create_connection(lambda: _Client(self), "127.0.0.1", self.ask.port)  # type: ignore[arg-type]
            self._clients.append(client)
        self._open = len(self._clients)
        before = time.process_time()
        self._started = time.perf_counter()
        self._until, self._bin = self._started + self.ask.seconds, self._started + 1
        self._begin()
        await asyncio.wait_for(self._done.wait(), self.ask.seconds + PATIENCE)
        self._end()
        self.outcome.seconds = time.perf_counter() - self._started
        self.outcome.client_cpu = time.process_time() - before
        self.outcome.counts.append(len(self.outcome.latencies) - sum(self.outcome.counts))
        for client in self._clients:
            client.transport.close()
        return self.outcome

    @abstractmethod
    def _begin(self) -> None:
        """Send the first requests."""

    def _end(self) -> None:  # noqa: B027 - most have nothing to put away
        """Let go of what `_begin` took."""

    def note(self, due: float) -> float:
        now, outcome = time.perf_counter(), self.outcome
        while now >= self._bin:
            outcome.counts.append(len(outcome.latencies) - sum(outcome.counts))
            self._bin += 1
        outcome.latencies.append(now - due)
        return now

    def lost(self, _client: _Client) -> None:
        self._open -= 1
        if not self._done.is_set():
            self.outcome.errors += 1
        if not self._open:
            self._done.set()


class _Closed(_Run):
    def _begin(self) -> None:
        self._busy = self._open
        for client in self._clients:
            client.send(self._next(), time.perf_counter())

    def answered(self, client: _Client, due: float) -> None:
        now = self.note(due)
        if now < self._until:
            client.send(self._next(), now)
            return
        self._busy -= 1
        if not self._busy:
            self._done.set()


class _Paced(_Run):
    def _begin(self) -> None:
        self._idle = deque(self._clients)
        self._gap = random.Random(self.ask.seed).expovariate
        self._due = self._started
        self._timer = _Timer()
        asyncio.get_running_loop().add_reader(self._timer.fd, self._tick)
        self._dispatch(self._started)
        self._timer.at(self._due)

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._timer.fd)
        os.close(self._timer.fd)

    def _tick(self) -> None:
        os.read(self._timer.fd, 8)
        now = time.perf_counter()
        self._dispatch(now)
        if now < self._until:
            self._timer.at(max(self._due, now + self.ask.tick))
        elif len(self._idle) == self._open:
            self._done.set()
        else:
            self._timer.at(now + 0.01)

    def _dispatch(self, now: float) -> None:
        while self._due <= now and self._due < self._until and self._idle:
            self._idle.popleft().send(self._next(), self._due)
            self._due += self._gap(self.ask.rate)

    def answered(self, client: _Client, due: float) -> None:
        now = self.note(due)
        self._idle.append(client)
        # Past the end nobody is asked any more: what is late by then shows as a rate below the one asked for.
        if self._due <= now < self._until:
            self._dispatch(now)


class _Timer:
    """A timerfd, for microseconds where an event loop has milliseconds; its clock is `perf_counter`'s."""

    _LIBC = ctypes.CDLL(None, use_errno=True)
    _MONOTONIC, _NONBLOCK, _ABSOLUTE = 1, 0o4000, 1

    def __init__(self) -> None:
        self.fd = self._LIBC.timerfd_create(self._MONOTONIC, self._NONBLOCK)
        self._value = ctypes.create_string_buffer(32)

    def at(self, when: float) -> None:
        struct.pack_into("qqqq", self._value, 0, 0, 0, int(when), int(when % 1 * 1e9))
        self._LIBC.timerfd_settime(self.fd, self._ABSOLUTE, self._value, None)


def _predict(listener: socket.socket, pipe: Connection) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(_Predictor, sock=listener)
        await server.serve_forever()

    del pipe
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


def _ask_all(_: None, pipe: Connection) -> None:
    made: dict[str, Traffic] = {}
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        while True:
            ask = pipe.recv()
            requests = made.setdefault(ask.traffic, made.get(ask.traffic) or traffic(ask.traffic))

            async def go(ask: Ask = ask, requests: Traffic = requests) -> Outcome | str:
                try:
                    return await (_Paced if ask.rate else _Closed)(ask, requests).go()
                except (OSError, TimeoutError) as error:
                    return repr(error)

            pipe.send(runner.run(go()))


class Worker:
    """A forked process; make them all before there are threads."""

    def __init__(self, target: Callable[[Any, Connection], None], argument: Any, cores: list[int]) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, far = context.Pipe()
        self._process = context.Process(target=target, args=(argument, far), daemon=True)
        self._process.start()
        far.close()
        self.process = psutil.Process(self._process.pid)
        if cores:
            self.process.cpu_affinity(cores)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()


class Predictor(Worker):
    """Answers every request with the same small JSON as soon as its last byte is there; listens on `port`."""

    def __init__(self, cores: list[int]) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = listener.getsockname()[1]
        super().__init__(_predict, listener, cores)
        listener.close()


class Client(Worker):
    """Does one `Ask` after another."""

    def __init__(self, cores: list[int]) -> None:
        super().__init__(_ask_all, None, cores)

    def start(self, ask: Ask) -> None:
        """Begin; nothing is waited for."""
        self.pipe.send(ask)

    def wait(self, seconds: float) -> bool:
        """Whether it is done within so many seconds."""
        return self.pipe.poll(seconds)

    def outcome(self) -> Outcome:
        """What came of it; RuntimeError where it could not be done."""
        found = self.pipe.recv()
        if isinstance(found, str):
            raise RuntimeError(f"the client failed: {found}")  # noqa: TRY004 - not a type that is wrong
        return found

    def run(self, ask: Ask) -> Outcome:
        """Begin, and wait for the end."""
        self.start(ask)
        return self.outcome()
