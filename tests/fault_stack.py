"""The whole of what the fault rounds break: Apache Kafka, predictor and `servelens logger`, processes to kill.

Ports and folders are chosen once, so that whatever is started again is found where it was. Where this may mount, the
spool lies on a small tmpfs that can be filled.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
from conftest import START, wait_for_kafka

from logger import ledger
from logger import segment as segments
from logger.account import SUFFIX, Sum
from servelens.contract.topics import Topics
from servelens.io.embedded import free_port
from servelens.io.kafka_settings import KafkaSettings
from servelens.io.processes import MAX_BACKOFF, STEADY

ROOT = Path(__file__).parent.parent
VOLUME = 64 << 20  # bytes of the tmpfs
PREFIX = "faults"
# Without a quick session a broker that was killed is not let in again for nine seconds.
KAFKA = "broker.session.timeout.ms=1000\nbroker.heartbeat.interval.ms=200\n"
JAVA = {"JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -Xshare:auto"}
CHILDREN = ("tap", "recorder", "shipper")


def wait(what: str, true: Callable[[], object], seconds: float = 30.0, pause: float = 0.01) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(pause)


def send(pid: int, number: int) -> None:
    """A signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


class Stack:
    """`start` all of it, `stop` all of it; between that, a fault's thread may take any part away and bring it back."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.spool = folder, folder / "spool"
        self.ports = {name: free_port() for name in ("kafka", "controller", "predictor", "tap", "admin")}
        self.settings = KafkaSettings(f"127.0.0.1:{self.ports['kafka']}", bootstrap_timeout_ms=60_000)
        self.topic = Topics(PREFIX).payloads
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.flags: tuple[str, ...] = ()
        self.mounted = False
        self._back_off: dict[str, float] = {}
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{self.ports['admin']}", timeout=5)

    # -- starting and stopping

    def start(self) -> None:
        self.spool.mkdir()
        if os.geteuid() == 0:
            mount = ["mount", "-t", "tmpfs", "-o", f"size={VOLUME}", "servelens-faults", str(self.spool)]
            self.mounted = subprocess.run(mount, check=False, stderr=subprocess.DEVNULL).returncode == 0
        (self.folder / "more.properties").write_text(KAFKA)
        self.start_broker()
        self.start_predictor()
        self.wait_broker()

    def stop(self) -> None:
        if "logger" in self.processes:
            self.stop_logger()
        for name in list(self.processes):
            self.end(name)
        self._http.close()
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.spool)], check=False)

    def _start(self, name: str, *command: str | Path, **more: Any) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            options = {"stdout": log, "stderr": log, "cwd": ROOT} | more
            process = self.processes[name] = subprocess.Popen(list(map(str, command)), **options)
        return process

    def end(self, name: str) -> None:
        """SIGKILL a process of ours, and wait for its end."""
        process = self.processes.pop(name)
        send(process.pid, signal.SIGCONT)
        process.kill()
        process.wait(30)

    def start_broker(self) -> None:
        ports = (str(self.ports["kafka"]), str(self.ports["controller"]))
        environment = {**os.environ, **JAVA}
        more = self.folder / "more.properties"
        self._start("kafka", START, *ports, self.folder / "kafka", more, env=environment)

    def wait_broker(self) -> None:
        wait_for_kafka(self.settings.bootstrap, self.processes["kafka"], 60)

    def start_predictor(self) -> None:
        port = self.ports["predictor"]
        self._start("predictor", sys.executable, ROOT / "tests" / "fault_predictor.py", str(port))
        wait("the predictor", lambda: listens(port))

    def start_logger(self, *flags: str) -> None:
        """As an operator does, and again until it is ready: the ports of one that was killed come free in a moment."""
        self.flags, self._back_off = flags, {}
        deadline = time.monotonic() + 40
        while not self._started(flags):
            assert time.monotonic() < deadline, "the logger does not start; see logger.log"
            time.sleep(0.05)

    def _started(self, flags: tuple[str, ...]) -> bool:
        process = self._start(
            "logger", Path(sys.executable).parent / "servelens", "logger",
            "--listen", f"127.0.0.1:{self.ports['tap']}", "--admin", f"127.0.0.1:{self.ports['admin']}",
            "--upstream", f"http://127.0.0.1:{self.ports['predictor']}", "--spool", self.spool,
            "--kafka", self.settings.bootstrap, "--topic-prefix", PREFIX,
            "--namespace", "ns", "--inference-service", "echo", "--accounting-slot", "1s", *flags,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        with process.stdout:
            return bool(process.stdout.readline()) or process.wait(10) is None

    def stop_logger(self) -> None:
        """As an operator does."""
        process = self.processes.pop("logger")
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    # -- looking

    def spooled(self) -> dict[str, Any]:
        """What the admin port says of the account; empty while nobody answers."""
        try:
            return dict(self._http.get("/spool").json())
        except (httpx.HTTPError, ValueError):
            return {}

    def ready(self) -> bool:
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def account(self) -> Sum:
        """The account as the files tell it: for when no logger runs."""
        return ledger.summarise(self.spool, self.spool / "taps")

    def pid(self, name: str) -> int | None:
        """A process, by its role; None while there is none. Of a child it is its parent who knows, even stopped."""
        if name not in CHILDREN:
            return self.processes[name].pid if name in self.processes else None
        return next((child.pid for child in self._children(f"logger.{name}")), None)

    def children(self) -> list[int]:
        """All of the logger's children."""
        return [child.pid for child in self._children("logger.")]

    def _children(self, word: str) -> Iterator[psutil.Process]:
        parent = self.pid("logger")
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(parent).children() if parent else ():
                if any(part.startswith(word) for part in child.cmdline()):
                    yield child

    def back_off(self, name: str, pid: int) -> float:
        """Seconds the parent will wait before it restarts a child killed now: none unless it died just before."""
        with contextlib.suppress(psutil.Error):
            young = time.time() - psutil.Process(pid).create_time() <= STEADY + 0.2
            self._back_off[name] = min(MAX_BACKOFF, self._back_off.get(name, 0.0) * 2 or 0.1) if young else 0.0
        return self._back_off.get(name, 0.0)

    def committed(self, stream: str) -> int | None:
        """The last frame of a tap's that is in the spool; None if that cannot be told."""
        with contextlib.suppress(Exception):
            found = segments.newest_state(self.spool)
            return found[1].streams.get(stream) if found else None
        return None

    def account_file(self, pid: int) -> Path | None:
        """The account file of a living tap."""
        return next(iter((self.spool / "taps").glob(f"*-{pid}{SUFFIX}")), None)


def listens(port: int) -> bool:
    """Whether somebody accepts on a port of ours."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
