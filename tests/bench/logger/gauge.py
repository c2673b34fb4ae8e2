"""What processes cost: CPU seconds, and memory as the kernel shares it out.

PSS counts a page shared by n processes as a n-th of it, so a sum over processes is what they take together; RSS counts
it n times.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import psutil

MIB = 1 << 20


def cpu(processes: Mapping[str, psutil.Process]) -> dict[str, float]:
    """CPU seconds of each so far."""
    times = {name: process.cpu_times() for name, process in processes.items()}
    return {name: one.user + one.system for name, one in times.items()}


def spent(processes: Mapping[str, psutil.Process], before: Mapping[str, float]) -> dict[str, float]:
    """CPU seconds of each since `before`."""
    return {name: now - before[name] for name, now in cpu(processes).items()}


def memory(processes: Mapping[str, psutil.Process]) -> dict[str, tuple[float, float]]:
    """PSS and RSS of each in MiB."""
    found = {name: process.memory_full_info() for name, process in processes.items()}
    return {name: (one.pss / MIB, one.rss / MIB) for name, one in found.items()}


@dataclass
class Watch:
    """Samples while a load runs: (seconds since its start, what `look` says). A thread of its own; sleeps mostly."""

    look: Callable[[], Any]
    every: float
    samples: list[tuple[float, Any]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self.every):
            self.samples.append((time.monotonic() - self._started, self.look()))


def together(memories: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
    """PSS and RSS of all of them."""
    return sum(pss for pss, _ in memories.values()), sum(rss for _, rss in memories.values())
