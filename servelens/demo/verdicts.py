"""What came out at the far end: verdicts and payload records, read from Kafka as any consumer would."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from kafka import TopicPartition

from servelens.contract import records
from servelens.contract.events import Exchange
from servelens.io.kafka import consumer, partition_count, read_all
from servelens.io.kafka_settings import KafkaSettings


@dataclass(slots=True)
class Watch:
    """Verdicts as they come, by id: a repeated one is the same one."""

    kafka: KafkaSettings
    topic: str
    verdicts: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Until `stop`; for a thread of its own."""
        client = consumer(self.kafka)
        client.assign([TopicPartition(self.topic, 0)])
        while not self.stop.is_set():
            for rows in client.poll(timeout_ms=200).values():
                for row in rows:
                    verdict = orjson.loads(row.value)
                    self.verdicts.setdefault(verdict["id"], verdict)
        client.close()

    def ordered(self) -> list[Mapping[str, Any]]:
        """The verdicts in order of time."""
        found = list(self.verdicts.values())  # the reading thread may add while we sort
        return sorted(found, key=lambda verdict: tuple(verdict["slots"]))


@dataclass(frozen=True, slots=True)
class Shipped:
    """What lies in the payloads topic: distinct exchanges, records that repeat one, and answers by status."""

    exchanges: int
    repeated: int
    by_status: Mapping[int | None, int]


def shipped(kafka: KafkaSettings, topic: str) -> Shipped:
    """Count the payload topic, independently of the logger's own account."""
    client = consumer(kafka)
    partitions = partition_count(client, topic)
    client.close()
    seen: dict[str, int | None] = {}
    rows = 0
    for partition in range(partitions):
        for record in read_all(kafka, topic, partition):
            event = records.decode(record.headers, record.value)
            if isinstance(event, Exchange):
                rows += 1
                seen[event.exchangeid] = event.status
    statuses = list(seen.values())
    by_status = {status: statuses.count(status) for status in set(statuses)}
    return Shipped(len(seen), rows - len(seen), by_status)
