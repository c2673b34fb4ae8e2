"""`servelens dlq`: what lies in a group's dead-letter topic and why, and its letters once more to the group.

Progress is committed under a group name of its own after a letter is acknowledged in the retry topic; one that is sent
twice all the same carries the same tap and row number, and counts once.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from kafka import OffsetAndMetadata, TopicPartition

from detectors import letters
from servelens.contract.errors import ConfigError
from servelens.contract.topics import Topics
from servelens.io.kafka import consumer, end_of, partition_count, producer, topic_ids
from servelens.io.kafka_settings import KafkaSettings

BATCH: Final = 500  # letters sent between two commits
SEND_TIMEOUT: Final = 30.0  # seconds


@dataclass(frozen=True, slots=True)
class Box:
    """A group's dead letters: all, those not yet replayed, and these by reason."""

    letters: int
    waiting: int
    reasons: Counter[str]


def _reader(kafka: KafkaSettings, prefix: str, group: str) -> tuple[Any, list[TopicPartition]]:
    """A consumer of the letters where the last replay ended."""
    topic = Topics(prefix).dead_letters(group)
    client = consumer(kafka, group_id=f"{group}.replay")
    places = [TopicPartition(topic, at) for at in range(partition_count(client, topic))]
    if not places:
        client.close()
        raise ConfigError("--group", f"there is no topic {topic}", f"Run: servelens topics apply --group {group}")
    client.assign(places)
    starts = client.beginning_offsets(places)
    for where in places:
        client.seek(where, max(starts[where], client.committed(where) or 0))
    return client, places


def _waiting(
    kafka: KafkaSettings, client: Any, places: list[TopicPartition]
) -> Iterator[tuple[TopicPartition, list[Any]]]:
    """The letters from where the consumer stands to their end as of now, in lots of one partition.

    As of now: one that fails again becomes a letter again, and must wait for the next replay.
    """
    ends = {where: end_of(kafka, where.topic, where.partition) for where in places}
    while any(client.position(where) < end for where, end in ends.items()):
        for where, rows in client.poll(timeout_ms=500, max_records=BATCH).items():
            kept = [record for record in rows if record.offset < ends[where]]
            if kept:
                yield where, kept


def look(kafka: KafkaSettings, prefix: str, group: str) -> Box:
    """Count them; nothing is changed."""
    client, places = _reader(kafka, prefix, group)
    with closing(client):
        starts = client.beginning_offsets(places)
        replayed = sum(client.position(where) - starts[where] for where in places)
        reasons: Counter[str] = Counter()
        for _, rows in _waiting(kafka, client, places):
            reasons.update(letters.about(record.headers).get("reason", "unknown") for record in rows)
    waiting = sum(reasons.values())
    return Box(replayed + waiting, waiting, reasons)


def replay(kafka: KafkaSettings, prefix: str, group: str, reason: str = "") -> Counter[str]:
    """Send what is waiting to the retry topic, only that of one reason if it is named; how many, by reason.

    Letters of other reasons are passed over for good: a replay goes forward only.
    """
    topic, retry = Topics(prefix).dead_letters(group), Topics(prefix).retry(group)
    client, places = _reader(kafka, prefix, group)
    topic_id, sent = topic_ids(kafka, [topic]).get(topic, ""), Counter[str]()
    out = producer(kafka)
    with closing(client), closing(out):
        if partition_count(client, retry) != len(places):
            raise ConfigError("topics", f"{retry} does not fit {topic}", f"Run: servelens topics apply --group {group}")
        for where, rows in _waiting(kafka, client, places):
            futures = []
            for record in rows:
                why = letters.about(record.headers).get("reason", "unknown")
                if reason in ("", why):
                    made = letters.replayed(record, topic_id, where.partition)
                    about = {"key": made.key, "value": made.value, "headers": list(made.headers)}
                    futures.append(out.send(retry, partition=where.partition, timestamp_ms=made.timestamp_ms, **about))
                    sent[why] += 1
            for future in futures:
                future.get(SEND_TIMEOUT)
            client.commit({where: OffsetAndMetadata(rows[-1].offset + 1, "", -1)})
    return sent
