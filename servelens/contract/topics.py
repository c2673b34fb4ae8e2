"""The topics, once: their names, partitions and settings. `servelens topics` creates and checks them from this table.

Payload, label and pane topics have equal and fixed partition counts, since a pane partition is the log of the payload
partition of the same number; more partitions mean a new prefix.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

DEFAULT_PREFIX: Final = "inference"
DEFAULT_PARTITIONS: Final = 4
_DAY: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic as it should be. `partitions` None = the group's fixed count."""

    name: str
    partitions: int
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Topics:
    """The topic names under one prefix."""

    prefix: str = DEFAULT_PREFIX

    @property
    def payloads(self) -> str:
        """Exchange and accounting events."""
        return f"{self.prefix}.payloads"

    @property
    def labels(self) -> str:
        """Labels: what became of predictions."""
        return f"{self.prefix}.labels"

    @property
    def verdicts(self) -> str:
        """Verdict CloudEvents."""
        return f"{self.prefix}.verdicts"

    def dead_letters(self, group: str) -> str:
        """Payload records a group's worker could not decode, with the reason."""
        return f"{self.prefix}.payloads.dlq.{group}"

    @property
    def profiles(self) -> str:
        """Profiles announced to follow others; compacted, one partition."""
        return f"{self.prefix}.profiles"

    def retry(self, group: str) -> str:
        """Dead letters a group is to try once more."""
        return f"{self.prefix}.retry.{group}"

    def panes(self, group: str) -> str:
        """The fenced log of claims, parts, commits and heartbeats."""
        return f"{self.prefix}.panes.{group}"

    def state(self, group: str) -> str:
        """Snapshots of the folds and windows; compacted."""
        return f"{self.prefix}.state.{group}"

    def lease(self, group: str) -> str:
        """The evaluator's journal: claims, renewals and cuts; one partition."""
        return f"{self.prefix}.lease.{group}"


def shared_topics(prefix: str, partitions: int) -> tuple[TopicSpec, ...]:
    """The topics every group shares."""
    names = Topics(prefix)
    return (
        TopicSpec(
            names.payloads, partitions, {"message.timestamp.type": "LogAppendTime", "retention.ms": str(7 * _DAY)}
        ),
        TopicSpec(names.labels, partitions, {"retention.ms": str(30 * _DAY)}),
        TopicSpec(names.verdicts, 1, {"retention.ms": str(90 * _DAY)}),
        TopicSpec(names.profiles, 1, {"cleanup.policy": "compact"}),
    )


BRIDGE: Final = "bridge"  # its dead letters are called after it, as those of a detector group are
# What the rows of a spool call a topic → its name.
ROW_TOPICS: Final[Mapping[str, Callable[[Topics], str]]] = {
    "": lambda topics: topics.payloads,
    "labels": lambda topics: topics.labels,
    "dead-letters": lambda topics: topics.dead_letters(BRIDGE),
}


def spooled_topics(prefix: str, partitions: int, rows: Iterable[str] = ("",)) -> tuple[TopicSpec, ...]:
    """The topics a shipper writes to, by what its rows call them."""
    letters = TopicSpec(Topics(prefix).dead_letters(BRIDGE), partitions, {"retention.ms": str(14 * _DAY)})
    specs = {spec.name: spec for spec in (*shared_topics(prefix, partitions), letters)}
    return tuple(specs[ROW_TOPICS[row](Topics(prefix))] for row in rows)


def group_topics(prefix: str, partitions: int, group: str) -> tuple[TopicSpec, ...]:
    """The topics of one detector group."""
    names = Topics(prefix)
    return (
        TopicSpec(names.dead_letters(group), partitions, {"retention.ms": str(14 * _DAY)}),
        TopicSpec(names.retry(group), partitions, {"retention.ms": str(14 * _DAY)}),
        TopicSpec(names.panes(group), partitions, {"retention.ms": str(14 * _DAY)}),
        TopicSpec(names.state(group), 1, {"cleanup.policy": "compact"}),
        TopicSpec(names.lease(group), 1, {"retention.ms": str(14 * _DAY)}),
    )
