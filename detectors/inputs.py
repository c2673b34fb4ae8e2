"""The topics a worker counts from: their names, ids and consumers, where their logs begin and end, who is paused.

Apart from `worker`, which says when. The payloads come from a group's consumer; the letters that are replayed have the
same partitions and follow their owner, read by the consumer that tails the panes.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from detectors.book import Book
from detectors.fence import PAYLOADS, RETRY
from detectors.intake import Intake
from detectors.ownership import Ownership
from detectors.settings import DetectorSettings
from detectors.stream import Stream
from servelens.contract.errors import BrokerError, ConfigError
from servelens.io.kafka import end_of, partition_count, topic_ids

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 30.0  # between looks at the topics' ids


@dataclass(slots=True)
class Inputs:
    """`topics`: input → topic name. `ids`: topic ids by input, as last seen: another one is another topic.

    An input whose id the broker does not tell is not in `ids`: nothing is begun anew because of that.
    """

    settings: DetectorSettings
    payloads: KafkaConsumer
    tail: KafkaConsumer
    topics: Mapping[str, str] = field(init=False)
    ids: dict[str, str] = field(default_factory=dict)
    looked: float = 0.0

    def __post_init__(self) -> None:
        names = self.settings.topics
        self.topics = {PAYLOADS: names.payloads, RETRY: names.retry(self.settings.group)}

    def client(self, name: str) -> KafkaConsumer:
        """The consumer of an input."""
        return self.payloads if name == PAYLOADS else self.tail

    def where(self, name: str, partition: int) -> TopicPartition:
        """An input's partition."""
        return TopicPartition(self.topics[name], partition)

    def check_partitions(self) -> None:
        """ConfigError unless inputs and panes have equally many partitions."""
        names = self.settings.topics
        counts = {
            name: partition_count(self.tail, name) for name in (*self.topics.values(), names.panes(self.settings.group))
        }
        if 0 in counts.values() or len(set(counts.values())) > 1:
            seen = ", ".join(f"{name} has {count}" for name, count in counts.items())
            remedy = "Run: servelens topics apply --group " + self.settings.group
            raise ConfigError("topics", f"partition counts do not fit: {seen}", remedy)

    def look(self, now: float) -> bool:
        """Learn the topics' ids; whether any has changed. While the broker cannot say, they stay as they are."""
        self.looked = now
        try:
            ids = topic_ids(self.settings.kafka, self.topics.values())
        except (BrokerError, KafkaError) as error:
            log.warning("topic ids cannot be read now", extra={"error": str(error)[:200]})
            return False
        found = self.ids | {name: ids[topic] for name, topic in self.topics.items() if topic in ids}
        changed, self.ids = found != self.ids, found
        return changed

    def look_is_due(self, now: float) -> bool:
        """Whether the last look is long ago."""
        return now - self.looked >= LOOK_SECONDS

    def shorter(self, partition: int, ownership: Ownership) -> dict[str, int]:
        """The inputs whose logs end before what was counted, and where."""
        ends = {name: self._end(name, partition, ownership.next(name)) for name in self.topics}
        return {name: end for name, end in ends.items() if end < ownership.next(name)}

    def _end(self, name: str, partition: int, counted: int) -> int:
        """Where an input's log ends; asked twice where it seems short, since a wrong answer would count rows twice."""
        where = self.where(name, partition)
        end = int(self.client(name).end_offsets([where])[where])
        return end if end >= counted else end_of(self.settings.kafka, where.topic, partition)

    def open(self, name: str, partition: int, ownership: Ownership, book: Book) -> Stream:
        """Read on where the fold ended, a horizon earlier for halves that wait; what retention took is a gap."""
        client, where, settings = self.client(name), self.where(name, partition), self.settings
        start, counted = client.beginning_offsets([where])[where], ownership.next(name)
        position = max(start, counted)
        intake = Intake(book, settings.slot, settings.max_age, ownership.seqs(name), ownership.fold.slot)
        client.seek(where, max(start, position - settings.horizon))
        client.resume(where)
        return Stream(name, intake, position, ((counted, start),) if start > counted else ())

    def pause(self, partition: int) -> None:
        """Read nothing of a partition for now."""
        for name in self.topics:
            self.client(name).pause(self.where(name, partition))

    def throttle(self, partition: int, stream: Stream) -> None:
        """No more of an input while its batch is full."""
        client, where = self.client(stream.name), self.where(stream.name, partition)
        full, paused = stream.full(self.settings.batch_records), where in client.paused()
        if full and not paused:
            client.pause(where)
        elif paused and not full:
            client.resume(where)
