"""One input of one partition while it is owned: where it is read up to, what is being counted, when a batch is due.

No I/O; apart from `worker`, which reads and appends. The payloads are one such input, the replayed letters another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from detectors.intake import Intake
from detectors.ownership import Batch


@dataclass(slots=True)
class Stream:
    """`position`: the offset after the last record taken. `gaps`: offsets its log no longer holds, not yet recorded."""

    name: str
    intake: Intake
    position: int
    gaps: tuple[tuple[int, int], ...] = ()
    opened: float = 0.0
    last: int = -1  # offset of the newest record that came

    def take(self, rows: Sequence[Any], now: float) -> bool:
        """Count records; those before the position are only looked at, for halves that wait.

        False, and nothing more is counted, where offsets go backwards: the topic was cut off or made anew.
        """
        for record in rows:
            if record.offset <= self.last:
                return False
            self.last = record.offset
            if record.offset < self.position:
                self.intake.recall(record)
                continue
            if record.offset > self.position:  # retention was faster than we
                self.gaps = (*self.gaps, (self.position, record.offset))
            if not self.intake.records:
                self.opened = now
            self.intake.take(record)
            self.position = record.offset + 1
        return True

    def full(self, most: int) -> bool:
        """Whether no more should be read before the batch is closed."""
        return self.intake.records >= most

    def due(self, now: float, most: int, seconds: float) -> bool:
        """Whether the batch should be closed now."""
        old = self.intake.records > 0 and now - self.opened >= seconds
        return self.full(most) or old or bool(self.gaps)

    def close(self) -> Batch:
        """The batch, with the gaps before it."""
        batch = self.intake.close(self.position, self.gaps)
        self.gaps = ()
        return batch
