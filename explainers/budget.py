"""What one explanation may use: time until its deadline, and rows of the predictor. The clock is given in."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from servelens.contract.errors import DeadlineExceeded

RESERVE = 0.05  # of the time, at most a quarter of a second: what is left for adding up and answering


@dataclass(frozen=True, slots=True)
class Budget:
    """`deadline` by `clock` (seconds, monotonic); `rows` the predictor may be asked at most for one explained row."""

    deadline: float
    rows: int
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def of(cls, seconds: float, rows: int, clock: Callable[[], float] = time.monotonic) -> "Budget":
        """So many seconds from now, less what answering takes."""
        return cls(clock() + seconds - min(0.25, RESERVE * seconds), rows, clock)

    def left(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self.deadline - self.clock())

    def check(self) -> None:
        """Raise DeadlineExceeded if none are left."""
        if self.left() <= 0:
            raise DeadlineExceeded("no explanation within the deadline; allow more time, or ask for less")
