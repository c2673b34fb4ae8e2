"""The logger's parent: holds the listening sockets, keeps taps, recorders and shippers alive, answers the admin port.

It touches no payload. Since the sockets are its own, a tap that dies takes only the exchanges open on its connections
with it: new connections wait in the backlog until the next tap accepts. Called by `servelens logger`.
"""

import logging
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from logger import lanes, ledger
from logger.account import Sum
from logger.arguments import arguments
from logger.exposition import AccountCollector, told
from logger.lanes import Lane
from logger.settings import LoggerSettings
from logger.upstream import unready
from servelens.contract.metrics import Instruments
from servelens.io import http
from servelens.io.processes import Child

log = logging.getLogger(__name__)

BACKLOG: Final = 4096
# Of recorder and shipper: one arena, and bodies given back to the system. Else glibc keeps the peak of every thread.
MALLOC: Final = {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "262144"}
PROBE_EVERY: Final = 1.0  # seconds for which an answer about the predictor is good


class Parent:
    """Runs until `stop` is set. `listening` and `admin` are addresses, known once `open` has returned."""

    def __init__(self, settings: LoggerSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings, self.clock = settings, clock
        self.stop = threading.Event()
        self.registry = CollectorRegistry()
        self.lanes: list[Lane] = []
        self.children: list[Child] = []
        self.listening = self.admin = ""
        self._listeners: list[socket.socket] = []
        self._metrics = Path(tempfile.mkdtemp(prefix="servelens-metrics-"))
        self._instruments = Instruments(self.registry)
        self._upstream: tuple[float, str | None] = (-PROBE_EVERY, None)

    def open(self) -> None:
        """Bind all sockets, start the children and the admin server."""
        settings = self.settings
        settings.spool.mkdir(parents=True, exist_ok=True)
        older = lanes.left_behind(settings.spool, settings.workers)
        self.lanes = lanes.lanes(
            settings.spool, settings.socket_path, settings.accounts, settings.processes, settings.workers,
            settings.spool_bytes, older,
        )  # fmt: skip
        for lane in self.lanes:
            lane.spool.mkdir(parents=True, exist_ok=True)
            lane.accounts.mkdir(parents=True, exist_ok=True)
        if "tap" in settings.processes:
            self._listeners = listeners(settings.listen, settings.workers)
            self.listening = http.address_of(self._listeners[0])
        bound = http.bind(settings.admin, "--admin")
        self.admin = http.address_of(bound)
        MultiProcessCollector(self.registry, path=str(self._metrics))  # type: ignore[no-untyped-call]
        if "recorder" in settings.processes:
            self.registry.register(AccountCollector(self.account, settings.service()))
        for name in settings.processes:
            self._instruments["servelens_logger_restarts_total"].labels(**settings.service(), process=name)
        self.children = [self._child(lane, name) for lane in self.lanes for name in lane.processes]
        for child in self.children:
            child.start(self.clock())
        self._server = http.Server(http.app(self.registry, self._unready, [Route("/spool", self._spool)]), bound)
        self._server.start()

    def _child(self, lane: Lane, name: str) -> Child:
        listen = self._listeners[lane.index].fileno() if name == "tap" else -1
        return Child(
            lane.name_of(name),
            [sys.executable, "-m", f"logger.{name}", *arguments(self.settings, lane, name, listen)],
            {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(self._metrics), **({} if name == "tap" else MALLOC)},
            pass_fds=(listen,) if listen >= 0 else (),
            idle=name != "tap",  # where there is too little time for all, inference has it first
        )

    def run(self, pause: float = 0.05) -> None:
        """Restart what dies until told to stop; then end in the order of the flow, so that each can hand over."""
        while not self.stop.wait(pause):
            for child in self.children:
                self._keep(child)
        for listener in self._listeners:
            listener.close()
        for name in lanes.STOP_ORDER:
            self._end([child for child in self.children if _process(child) == name])
        self._server.stop()
        shutil.rmtree(self._metrics, ignore_errors=True)

    def _end(self, children: list[Child]) -> None:
        """All lanes' processes of one kind at once: the grace is for all of them."""
        threads = [threading.Thread(target=child.stop, args=(self.settings.grace_seconds + 2,)) for child in children]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _keep(self, child: Child) -> None:
        dead = child.keep(self.clock())
        if dead is not None:
            mark_process_dead(dead, str(self._metrics))  # type: ignore[no-untyped-call]
            labels = {**self.settings.service(), "process": _process(child)}
            self._instruments["servelens_logger_restarts_total"].labels(**labels).inc()

    def account(self) -> Sum:
        """The sum of exchanges over all lanes, as spools and account files tell it now."""
        return ledger.total(ledger.summarise(lane.spool, lane.accounts) for lane in self.lanes)

    def _unready(self) -> str | None:
        down = [child.name for child in self.children if child.pid is None]
        if down:
            return f"restarting: {', '.join(down)}"
        if "tap" not in self.settings.processes:
            return None
        at, answer = self._upstream
        if self.clock() - at >= PROBE_EVERY:
            answer = unready(self.settings.address, self.settings.probe_path)
            self._upstream = self.clock(), answer
        return answer

    async def _spool(self, _: Request) -> Response:
        account = await run_in_threadpool(self.account)
        return http.json_response(told(account, self.children))


def listeners(address: str, workers: int) -> list[socket.socket]:
    """One listening socket a worker, all on one port: the kernel spreads new connections over them."""
    first = http.bind(address, "--listen", BACKLOG, reuse_port=workers > 1)
    same = http.address_of(first)
    return [first, *(http.bind(same, "--listen", BACKLOG, reuse_port=True) for _ in range(workers - 1))]


def _process(child: Child) -> str:
    return child.name.partition("-")[0]
