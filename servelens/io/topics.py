"""Create and check topics against the contract's table. What a broker does not show is unknown, not wrong.

Called by `servelens topics`, by the logger's shipper (`--create-topics`) and by the detector at start.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError

from servelens.contract.errors import BrokerError
from servelens.contract.topics import TopicSpec
from servelens.io.kafka import admin
from servelens.io.kafka_settings import KafkaSettings

Found = Literal["ok", "wrong", "unknown", "missing"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one aspect of a topic: `aspect` is `topic`, `partitions` or a setting's name."""

    topic: str
    aspect: str
    found: Found
    wanted: str
    seen: str = ""

    def __str__(self) -> str:
        seen = f", seen {self.seen}" if self.seen else ""
        return f"{self.found:8} {self.topic} {self.aspect}: wanted {self.wanted}{seen}"


def create(kafka: KafkaSettings, specs: Iterable[TopicSpec], replication: int = 1) -> list[str]:
    """Create what is missing; the names created. Existing topics are left as they are."""
    made: list[str] = []
    with closing(admin(kafka)) as client:
        existing = set(_names(client))
        for spec in specs:
            if spec.name in existing:
                continue
            if _create_one(client, spec, replication):
                made.append(spec.name)
    return made


def _create_one(client: Any, spec: TopicSpec, replication: int) -> bool:
    topic = NewTopic(spec.name, spec.partitions, replication, topic_configs=dict(spec.settings))
    try:
        client.create_topics([topic])
    except TopicAlreadyExistsError:
        return False
    except KafkaError as error:
        raise BrokerError(f"topic {spec.name} could not be created: {type(error).__name__}: {error}") from error
    return True


def _names(client: Any) -> list[str]:
    try:
        return list(client.list_topics())
    except KafkaError as error:
        raise BrokerError(f"topics could not be listed: {type(error).__name__}") from error


def check(kafka: KafkaSettings, specs: Iterable[TopicSpec]) -> list[Finding]:
    """One finding per topic, its partitions and each wanted setting."""
    specs = list(specs)
    with closing(admin(kafka)) as client:
        existing = set(_names(client))
        here = [spec.name for spec in specs if spec.name in existing]
        described = {row["name"]: row for row in client.describe_topics(here)} if here else {}
        settings = {name: _settings(client, name) for name in here}
    findings: list[Finding] = []
    for spec in specs:
        if spec.name not in described:
            findings.append(Finding(spec.name, "topic", "missing", f"{spec.partitions} partitions"))
            continue
        seen = len(described[spec.name].get("partitions", ()))
        findings.append(_compared(spec.name, "partitions", str(spec.partitions), str(seen)))
        findings += [
            _compared(spec.name, key, want, settings[spec.name].get(key)) for key, want in spec.settings.items()
        ]
    return findings


def _compared(topic: str, aspect: str, wanted: str, seen: str | None) -> Finding:
    if seen is None:
        return Finding(topic, aspect, "unknown", wanted)
    return Finding(topic, aspect, "ok" if seen == wanted else "wrong", wanted, seen)


def _settings(client: Any, name: str) -> Mapping[str, str]:
    """The settings the broker shows; none at all from a broker that shows none."""
    try:
        answer = client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)], config_filter="all")
    except KafkaError:
        return {}
    shown = answer.get("topic", {}).get(name, {})
    return {key: str(entry["value"]) for key, entry in shown.items()}


def partition_counts(kafka: KafkaSettings, names: Sequence[str]) -> dict[str, int]:
    """How many partitions each topic has now, 0 if it is missing. Never creates one."""
    with closing(admin(kafka)) as client:
        existing = set(_names(client))
        here = [name for name in names if name in existing]
        found = {row["name"]: len(row.get("partitions", ())) for row in (client.describe_topics(here) if here else ())}
    return {name: found.get(name, 0) for name in names}
