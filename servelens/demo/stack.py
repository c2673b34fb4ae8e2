"""The demo's processes: broker, predictor, logger, workers, evaluators, explainer; all supervised, each with its log.

They are the same commands a pod runs. A child that dies is restarted, by us or, inside the logger, by its parent.
"""

import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from servelens.contract.errors import StateError
from servelens.contract.topics import DEFAULT_PARTITIONS, Topics, group_topics, shared_topics
from servelens.demo.flights import IDENTITY
from servelens.io.embedded import free_port
from servelens.io.kafka_settings import KafkaSettings
from servelens.io.processes import Child
from servelens.io.topics import create

GROUP: Final = "drift"
SLOT: Final = 1  # seconds
LATENESS: Final = 2  # seconds
LOGGER_PARTS: Final = ("tap", "recorder", "shipper")


@dataclass(slots=True)
class Stack:
    """Addresses are chosen at once, so that a restarted process is found where it was."""

    out: Path
    prefix: str
    seed: int = 0
    kafka: str = ""
    children: dict[str, Child] = field(default_factory=dict)
    broker: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    predictor: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    tap: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    admin: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    explainer: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    detectors: dict[str, str] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    @property
    def settings(self) -> KafkaSettings:
        """How to reach the broker, the given one or the embedded."""
        return KafkaSettings(self.kafka or self.broker)

    @property
    def topics(self) -> Topics:
        """The run's own topics."""
        return Topics(self.prefix)

    # -- starting ---------------------------------------------------------------------------------------------

    def start_broker(self) -> None:
        """The embedded broker, unless one was given; then the topics."""
        if not self.kafka:
            self._start("broker", "servelens.cli", "broker", "--listen", self.broker)
            self.wait("broker", lambda: _listens(self.broker))
        specs = (*shared_topics(self.prefix, DEFAULT_PARTITIONS), *group_topics(self.prefix, DEFAULT_PARTITIONS, GROUP))
        create(self.settings, specs)

    @property
    def key(self) -> Path:
        """The key by which the tap knows the explainer's own questions."""
        return self.out / "synthetic.key"

    @property
    def token(self) -> Path:
        """Who may see the verdicts' page."""
        return self.out / "page.token"

    def start_serving(self) -> None:
        """Predictor and logger."""
        self.key.touch(0o600)
        self.key.write_text(secrets.token_hex(32))
        self._start("predictor", "servelens.demo.predictor", "--listen", self.predictor, "--seed", str(self.seed))
        self._start(
            "logger", "servelens.cli", "logger",
            "--listen", self.tap, "--admin", self.admin, "--upstream", f"http://{self.predictor}",
            "--spool", str(self.out / "spool"), "--kafka", self.settings.bootstrap, "--topic-prefix", self.prefix,
            "--namespace", IDENTITY.namespace, "--inference-service", IDENTITY.inferenceservice,
            "--accounting-slot", f"{SLOT}s", "--synthetic-key", str(self.key),
        )  # fmt: skip

    def start_explainer(self) -> None:
        """The explainer, which asks through the tap as it would through a Service; its artifact must be there."""
        host, _, port = self.explainer.rpartition(":")
        self._start(
            "explainer", "servelens.cli", "explainer", "--model_name", IDENTITY.modelname,
            "--predictor_host", self.tap, "--predictor_protocol", "v2", "--http_port", port, "--host", host,
            "--artifacts", str(self.out / "explainer"), "--synthetic-key", str(self.key),
        )  # fmt: skip
        self.others["explainer"] = self.explainer

    def start_detectors(self, workers: int = 2, evaluators: int = 2) -> None:
        """Workers share the partitions; of the evaluators one is active."""
        self.token.touch(0o600)
        self.token.write_text(secrets.token_urlsafe(18))
        for role, count in (("worker", workers), ("evaluator", evaluators)):
            for number in range(1, count + 1):
                name = f"{role}-{number}"
                self.detectors[name] = f"127.0.0.1:{free_port()}"
                self._start(
                    name, "servelens.cli", "detector", "--role", role, "--group", GROUP,
                    "--kafka", self.settings.bootstrap, "--topic-prefix", self.prefix,
                    "--profiles", str(self.out / "profiles"), "--listen", self.detectors[name],
                    "--slot", f"{SLOT}s", "--lateness", f"{LATENESS}s", "--lease", "3s", "--silence", "20s",
                    "--shortest-window", f"{SLOT}s", "--heartbeat", "0s", "--token-file", str(self.token),
                )  # fmt: skip

    def _start(self, name: str, module: str, *arguments: str) -> None:
        logs = self.out / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-m", module, *arguments]
        child = Child(name, command, environment, output=logs / f"{name}.log")
        child.start(time.monotonic())
        self.children[name] = child

    # -- supervising ------------------------------------------------------------------------------------------

    @contextmanager
    def supervised(self, pause: float = 0.05) -> Iterator[None]:
        """Restart what dies while inside; end everything, last started first, on the way out."""
        keeper = threading.Thread(target=self._keep, args=(pause,), name="supervisor", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            self._stop.set()
            keeper.join()
            for child in reversed(self.children.values()):
                child.stop(15.0)

    def _keep(self, pause: float) -> None:
        while not self._stop.wait(pause):
            for child in list(self.children.values()):
                child.keep(time.monotonic())

    def wait(self, what: str, ready: Callable[[], bool], timeout: float = 60.0) -> None:
        """Until `ready`; StateError naming the log to read after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not ready():
            if time.monotonic() > deadline:
                raise StateError(f"{what} was not ready within {timeout:.0f} s; see {self.out}/logs")
            time.sleep(0.05)

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Until every process says it is ready."""
        self.wait("predictor", lambda: _listens(self.predictor), timeout)
        for name, address in {"logger": self.admin, **self.detectors, **self.others}.items():
            self.wait(name, lambda address=address: _ready(address), timeout)  # type: ignore[misc]

    def kill(self, name: str) -> tuple[int, float]:
        """SIGKILL a process by its role: `tap`, `recorder` and `shipper` too; its process id and the moment (Unix)."""
        pid = self._pid(name)
        at = time.time()
        os.kill(pid, signal.SIGKILL)
        return pid, at

    def end(self, name: str) -> None:
        """Stop a process for good: the supervisor forgets it first."""
        child = self.children.pop(name)
        time.sleep(0.2)  # the supervisor may be looking at it just now
        child.stop(5.0)

    def wait_replaced(self, name: str, pid: int, timeout: float = 60.0) -> None:
        """Until another process has taken the place of a killed one, and everything is ready again."""
        self.wait(name, lambda: self.children[name].pid not in (None, pid), timeout)
        self.wait_ready(timeout)

    def _pid(self, name: str) -> int:
        if name in LOGGER_PARTS:
            pid = self.spool()["processes"][name]
        else:
            child = self.children.get(name) or self.children.get(f"{name}-1")
            pid = child.pid if child else None
        if pid is None:
            raise StateError(f"{name} does not run; known are {', '.join((*LOGGER_PARTS, *self.children))}")
        return int(pid)

    def active_evaluator(self) -> str:
        """The evaluator that holds the lease; StateError while none does."""
        for name, address in self.detectors.items():
            if name.startswith("evaluator") and "servelens_evaluator_active 1" in metrics(address):
                return name
        raise StateError("no evaluator holds the lease")

    def page(self) -> str:
        """The active evaluator's page of verdicts, as a browser gets it."""
        address = self.detectors[self.active_evaluator()]
        found = httpx.get(f"http://{address}/", auth=("demo", self.token.read_text()), timeout=30)
        return found.text if found.status_code == 200 else ""

    def spool(self) -> dict[str, Any]:
        """What the logger's admin port says of the account."""
        answer: dict[str, Any] = httpx.get(f"http://{self.admin}/spool", timeout=10).json()
        return answer


def metrics(address: str) -> str:
    """A process's exposition, empty while it cannot be reached."""
    try:
        return httpx.get(f"http://{address}/metrics", timeout=5).text
    except httpx.HTTPError:
        return ""


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 0.2).close()
    except OSError:
        return False
    return True


def _ready(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/readyz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
