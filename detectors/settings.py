"""What `servelens detector` was told: shared by worker and evaluator, which must agree on slot and group."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from detectors.statistics import Settings as Statistics
from detectors.windows import Closing
from servelens.contract.topics import Topics
from servelens.io.kafka_settings import KafkaSettings

CARRY: Final = 86_400  # seconds for which a window with too few rows is carried on


@dataclass(frozen=True, slots=True)
class DetectorSettings:
    """Times in seconds. Slot and lateness belong to the group: another value is another group."""

    kafka: KafkaSettings
    topic_prefix: str
    group: str
    profiles: Path | None
    listen: str
    slot: int = 10
    lateness: int = 30
    role: str = "all"
    statistics: Statistics = field(default_factory=Statistics)
    shortest_window: int = 60  # of event time: how many windows, and so chances of a false alarm, a year can have
    longest_window: int = 900  # a window with n_min rows closes after so much event time
    heartbeat: int = 3600  # of event time, after which a verdict is published though nothing has changed
    token_file: Path | None = None  # who may see the page and the API; without one, nobody
    silence: float = 60.0  # a partition silent for so long no longer holds windows open
    lease: float = 5.0  # an evaluator silent for so long is replaced
    batch_records: int = 5000
    batch_seconds: float = 1.0
    max_age: int = 7 * 86_400  # of an event, against the broker's time
    horizon: int = 2000  # records re-read before the position, for halves that wait
    grace: float = 5.0

    @property
    def topics(self) -> Topics:
        """The topic names."""
        return Topics(self.topic_prefix)

    @property
    def closing(self) -> Closing:
        """When windows close, in slots."""
        return Closing(
            self.statistics.n_target,
            self.statistics.n_min,
            lateness=-(-self.lateness // self.slot),
            least_slots=-(-self.shortest_window // self.slot),
            most_slots=max(1, self.longest_window // self.slot),
            carry_slots=max(1, CARRY // self.slot),
        )
