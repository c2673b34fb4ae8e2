"""The detector as a process: profiles, HTTP, and each role in a thread of its own. Called by `servelens detector`."""

import gc
import logging
import threading
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry

from detectors.api import Api
from detectors.book import read_book
from detectors.evaluator import Evaluator
from detectors.reporting import Reports
from detectors.settings import DetectorSettings
from detectors.worker import Worker
from servelens import __version__
from servelens.contract.errors import BrokerError, ConfigError, ServeLensError
from servelens.contract.metrics import Instruments
from servelens.io import http
from servelens.io.keys import read_key
from servelens.io.processes import stop_on_signals

log = logging.getLogger(__name__)

# Thousands of panes are held at once, none in a cycle: looking through them all again and again took a third of a
# restart's time.
COLLECT: Final = (50_000, 50, 1000)
Role = Worker | Evaluator
_ROLES: Final = {"worker": (Worker,), "evaluator": (Evaluator,), "all": (Worker, Evaluator)}


class Detector:
    """Opens its port, then runs the role in the calling thread (`all`: the evaluator in a second one)."""

    def __init__(self, settings: DetectorSettings) -> None:
        self.settings = settings
        if settings.role not in _ROLES:
            raise ConfigError("--role", f"{settings.role!r} is none", f"Use one of {', '.join(_ROLES)}.")
        self.registry = CollectorRegistry()
        self.metrics = Instruments(self.registry)
        # A book a role: each is kept up to date by its own thread.
        self.roles: list[Role] = [
            make(settings, read_book(settings.profiles, settings.slot), self.metrics) for make in _ROLES[settings.role]
        ]
        self.failure: ServeLensError | None = None
        self.stop = threading.Event()

    def open(self) -> str:
        """Start the HTTP server; its address."""
        gc.set_threshold(*COLLECT)
        bound = http.bind(self.settings.listen)
        self.metrics["servelens_build_info"].labels(version=__version__, service="detector").set(1)
        token = self.settings.token_file
        shown = read_key(token, "--token-file").decode() if token else ""
        evaluator = next((role for role in self.roles if isinstance(role, Evaluator)), None)
        routes = Api(evaluator, shown, Reports(self.settings)).routes()
        self._server = http.Server(http.app(self.registry, self._unready, routes), bound)
        self._server.start()
        return http.address_of(bound)

    def _unready(self) -> str | None:
        waiting = [type(role).__name__.lower() for role in self.roles if not role.ready]
        return f"not yet: {', '.join(waiting)}" if waiting else None

    def run(self) -> None:
        """Until SIGTERM; raises what ended a role, if something did."""
        stop_on_signals(self.stop, self._stop)
        threads = [threading.Thread(target=self._guarded(role), name=role.name, daemon=True) for role in self.roles]
        for thread in threads:
            thread.start()
        while not self.stop.wait(0.2) and all(thread.is_alive() for thread in threads):
            pass
        self._stop()
        for thread in threads:
            thread.join(self.settings.grace)
        self._server.stop()
        if self.failure is not None:
            raise self.failure

    def _stop(self) -> None:
        for role in self.roles:
            role.stop.set()

    def _guarded(self, role: Role) -> Callable[[], None]:
        def run() -> None:
            try:
                role.run()
            except ServeLensError as error:
                self.failure = error
            except Exception as error:  # the role's top: a process that has lost its loop must end and be restarted
                log.exception("ended by an unexpected error", extra={"role": role.name})
                self.metrics["servelens_task_errors_total"].labels(task=type(role).__name__.lower()).inc()
                self.failure = BrokerError(f"{role.name} ended: {type(error).__name__}: {error}")

        return run
