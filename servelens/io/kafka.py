"""The Kafka clients, made one way: safe defaults, TLS and SASL from files, our error tree instead of the library's.

The only module that constructs kafka-python objects; services keep the loops, this keeps the settings.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from typing import Any, Final
from uuid import UUID

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError
from kafka.net.compat import KafkaNetClient

from servelens.contract.errors import BrokerError
from servelens.io.kafka_settings import KafkaSettings

# Half of it is what a group join takes on the embedded broker, and six seconds is the least Kafka allows by default.
SESSION_TIMEOUT_MS: Final = 6000
NO_ID: Final = str(UUID(int=0))  # what brokers say of a topic that is missing, or before they knew ids


def _connected(settings: KafkaSettings, make: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    try:
        return make(**settings.options(), **options)
    except KafkaError as error:
        raise BrokerError(f"no Kafka at {settings.bootstrap}: {type(error).__name__}; check --kafka") from error


class _PatientClient(KafkaNetClient):  # type: ignore[misc]  # the library has no types
    """kafka-python 3.0's sender takes these seconds for milliseconds, and spins on one core while a broker hangs."""

    def connection_delay(self, node_id: int) -> float:
        """Milliseconds until another attempt to connect, and never a busy loop."""
        return max(50.0, 1000.0 * float(super().connection_delay(node_id)))


def producer(settings: KafkaSettings, **overrides: Any) -> KafkaProducer:
    """An idempotent producer with acks=all; keys are partitioned by murmur2, as Java clients do."""
    defaults = {"compression_type": "lz4", "linger_ms": 5, "kafka_client": _PatientClient}
    return _connected(settings, KafkaProducer, {**defaults, **overrides})


def consumer(settings: KafkaSettings, **overrides: Any) -> KafkaConsumer:
    """A consumer that commits nothing by itself and starts at the log's beginning."""
    defaults = {"enable_auto_commit": False, "auto_offset_reset": "earliest", "fetch_max_wait_ms": 100}
    return _connected(settings, KafkaConsumer, {**defaults, **overrides})


def group_consumer(settings: KafkaSettings, group: str, topic: str, **overrides: Any) -> KafkaConsumer:
    """A consumer to subscribe to `topic` in a group, whose session is so short that the dead are replaced in seconds.

    It knows the topic's partitions before it joins: a group leader that does not yet assigns nothing to anyone, and
    with kafka-python 3.0 nothing makes it look again (seen one time in fifteen on a busy machine).
    """
    defaults = {"group_id": group, "session_timeout_ms": SESSION_TIMEOUT_MS, "heartbeat_interval_ms": 1000}
    client = consumer(settings, **{**defaults, **overrides})
    partition_count(client, topic)
    return client


def admin(settings: KafkaSettings) -> KafkaAdminClient:
    """An admin client; close it."""
    return _connected(settings, KafkaAdminClient, {})


def partition_count(client: KafkaConsumer, topic: str) -> int:
    """How many partitions a topic has, 0 if there is no such topic."""
    return len(client.partitions_for_topic(topic) or ())


def topic_ids(settings: KafkaSettings, topics: Iterable[str]) -> dict[str, str]:
    """Each topic's id, as text: another id under the same name is another topic. Those without one are left out."""
    with closing(admin(settings)) as client:
        rows = client.describe_topics(list(topics))
    found = {row["name"]: str(row.get("topic_id") or NO_ID) for row in rows}
    return {name: topic_id for name, topic_id in found.items() if topic_id != NO_ID}


def read_all(settings: KafkaSettings, topic: str, partition: int, start: int | None = None) -> list[Any]:
    """Every record of one partition from `start` (default: its beginning) to its end as of now."""
    where = TopicPartition(topic, partition)
    with closing(consumer(settings)) as client:
        client.assign([where])
        begin = client.beginning_offsets([where])[where]
        if client.end_offsets([where])[where] <= begin:
            return []
        client.seek(where, begin if start is None else start)
        rows: list[Any] = []
        # The embedded broker's latest offset is the last batch's first + 1; what a fetch says is right on any broker.
        while (end := client.highwater(where)) is None or client.position(where) < end:
            rows += client.poll(timeout_ms=500).get(where, [])
        return rows


def end_of(settings: KafkaSettings, topic: str, partition: int) -> int:
    """The offset after the last record, as a fetch tells it."""
    where = TopicPartition(topic, partition)
    with closing(consumer(settings)) as client:
        client.assign([where])
        begin, end = client.beginning_offsets([where])[where], client.end_offsets([where])[where]
        if end <= begin:
            return int(end)
        client.seek(where, end - 1)
        while client.highwater(where) is None:
            client.poll(timeout_ms=500)
        return max(int(end), int(client.highwater(where)))
