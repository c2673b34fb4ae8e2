"""Keep a child process alive: start it, notice its death, restart it without a tight loop, end it in good order.

Used by the logger's parent for tap, recorder and shipper, and by the demo for everything.
"""

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

log = logging.getLogger(__name__)

STEADY: Final = 5.0  # seconds a child must have lived for its death to be no part of a crash loop
MAX_BACKOFF: Final = 5.0  # seconds
_LOWEST: Final = 19
CHILD_MARK: Final = "SERVELENS_CHILD"  # in the environment of a process whose stdin is held open by its parent


@dataclass(slots=True)
class Child:
    """A process to keep alive. Its stdin is a pipe we hold: when we die, it reads the end and leaves."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    pass_fds: tuple[int, ...] = ()
    idle: bool = False  # runs on time nobody else wants (SCHED_IDLE): a waking process of others never waits for it
    output: Path | None = None  # stdout and stderr are appended to it; None = ours
    restarts: int = 0
    process: subprocess.Popen[bytes] | None = None
    _started: float = 0.0
    _backoff: float = 0.0
    _due: float = 0.0

    def start(self, now: float) -> None:
        """Start it."""
        with ExitStack() as opened:
            sink = opened.enter_context(self.output.open("ab")) if self.output else None
            self.process = subprocess.Popen(
                self.command,
                env={**self.environment, CHILD_MARK: "1"},
                pass_fds=self.pass_fds,
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=sink,
            )
        if self.idle:
            _step_back(self.process.pid)
        self._started = now
        log.info("started", extra={"child": self.name, "pid": self.process.pid})

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def keep(self, now: float) -> int | None:
        """Restart it if it is dead and due; the pid of a death first noticed in this call, else None."""
        dead = self._died(now) if self.process is not None else None
        if self.process is None and now >= self._due:
            self.restarts += 1
            self.start(now)
        return dead

    def _died(self, now: float) -> int | None:
        process = self.process
        if process is None or process.poll() is None:
            return None
        if process.stdin:
            process.stdin.close()
        self.process = None
        self._backoff = 0.0 if now - self._started > STEADY else min(MAX_BACKOFF, self._backoff * 2 or 0.1)
        self._due = now + self._backoff
        extra = {"child": self.name, "pid": process.pid, "code": process.returncode, "restart_in": self._backoff}
        log.warning("died", extra=extra)
        return process.pid

    def stop(self, grace: float) -> None:
        """SIGTERM, wait, SIGKILL after the grace in seconds."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(grace)
        except subprocess.TimeoutExpired:
            log.warning("killed after its grace", extra={"child": self.name, "grace": grace})
            self.process.kill()
            self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()
        self.process = None


def stop_on_signals(stop: threading.Event, also: Callable[[], Any] = lambda: None) -> None:
    """Set `stop` on SIGTERM, on SIGINT and, in a `Child`, when its parent is gone. Main thread only."""

    def note(*_: object) -> None:
        stop.set()
        also()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    if os.environ.get(CHILD_MARK):
        threading.Thread(target=_when_orphaned, args=(note,), name="parent", daemon=True).start()


def _when_orphaned(note: Callable[[], None]) -> None:
    while os.read(0, 4096):
        pass
    note()


def _step_back(pid: int) -> None:
    """Before it has threads, which inherit it. Where the policy may not be set, the lowest priority is close to it."""
    with suppress(ProcessLookupError):
        try:
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
        except PermissionError:
            os.setpriority(os.PRIO_PROCESS, pid, _LOWEST)
