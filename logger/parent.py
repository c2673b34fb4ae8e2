"""The logger's parent: holds the listening socket, keeps tap, recorder and shipper alive, answers the admin port.

It touches no payload. Since the socket is its own, a tap that dies takes only the exchanges open on its connections
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

from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from logger import ledger
from logger.account import Sum
from logger.exposition import AccountCollector
from logger.settings import ROLES, LoggerSettings
from servelens.contract.metrics import Instruments
from servelens.io import http
from servelens.io.processes import Child

log = logging.getLogger(__name__)


class Parent:
    """Runs until `stop` is set. `listening` and `admin` are addresses, known once `open` has returned."""

    def __init__(self, settings: LoggerSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings, self.clock = settings, clock
        self.stop = threading.Event()
        self.registry = CollectorRegistry()
        self.children: list[Child] = []
        self.listening = self.admin = ""
        self._listener: socket.socket | None = None
        self._metrics = Path(tempfile.mkdtemp(prefix="servelens-metrics-"))
        self._instruments = Instruments(self.registry)

    def open(self) -> None:
        """Bind both sockets, start the children and the admin server."""
        self.settings.spool.mkdir(parents=True, exist_ok=True)
        self.settings.accounts.mkdir(parents=True, exist_ok=True)
        names = ROLES[self.settings.role]
        if "tap" in names:
            self._listener = http.bind(self.settings.listen, "--listen", backlog=4096)
            self.listening = http.address_of(self._listener)
        bound = http.bind(self.settings.admin, "--admin")
        self.admin = http.address_of(bound)
        MultiProcessCollector(self.registry, path=str(self._metrics))  # type: ignore[no-untyped-call]
        if "recorder" in names:
            self.registry.register(AccountCollector(self.account, self.settings.service()))
        # The recorder first, so that the tap finds its socket.
        for name in names:
            self._instruments["servelens_logger_restarts_total"].labels(**self.settings.service(), process=name)
        self.children = [self._child(name) for name in sorted(names, key=("recorder", "tap", "shipper").index)]
        for child in self.children:
            child.start(self.clock())
        self._server = http.Server(http.app(self.registry, self._unready, [Route("/spool", self._spool)]), bound)
        self._server.start()

    def _child(self, name: str) -> Child:
        listen = self._listener.fileno() if self._listener and name == "tap" else -1
        return Child(
            name,
            [sys.executable, "-m", f"logger.{name}", *self.settings.arguments(name, listen)],
            {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(self._metrics)},
            pass_fds=(listen,) if listen >= 0 else (),
        )

    def run(self, pause: float = 0.05) -> None:
        """Restart what dies until told to stop; then end in the order of the flow, so that each can hand over."""
        while not self.stop.wait(pause):
            for child in self.children:
                self._keep(child)
        if self._listener:
            self._listener.close()
        for child in sorted(self.children, key=lambda child: ("tap", "recorder", "shipper").index(child.name)):
            child.stop(self.settings.grace_seconds + 2)
        self._server.stop()
        shutil.rmtree(self._metrics, ignore_errors=True)

    def _keep(self, child: Child) -> None:
        dead = child.keep(self.clock())
        if dead is not None:
            mark_process_dead(dead, str(self._metrics))  # type: ignore[no-untyped-call]
            labels = {**self.settings.service(), "process": child.name}
            self._instruments["servelens_logger_restarts_total"].labels(**labels).inc()

    def account(self) -> Sum:
        """The sum of exchanges, as spool and account files tell it now."""
        return ledger.summarise(self.settings.spool, self.settings.accounts)

    def _unready(self) -> str | None:
        down = [child.name for child in self.children if child.pid is None]
        return f"restarting: {', '.join(down)}" if down else None

    async def _spool(self, _: Request) -> Response:
        account = self.account()
        return http.json_response(
            {
                "offered": account.offered,
                "shipped": account.shipped,
                "waiting": account.waiting,
                "reasons": dict(account.reasons),
                "adds_up": account.adds_up,
                "processes": {child.name: child.pid for child in self.children},
                "restarts": {child.name: child.restarts for child in self.children},
            }
        )
