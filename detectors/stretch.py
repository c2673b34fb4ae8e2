"""Rows out of a stretch of the payload topic: a reference taken from life, or the rows behind a verdict.

The one reader of payloads beside the worker; it counts nothing and belongs to no group. Called by
`servelens profile build` and by the report.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from kafka import KafkaConsumer, TopicPartition

from detectors.intake import succeeded, table_of
from detectors.pairing import Pairing
from servelens.contract import paths, records
from servelens.contract.errors import ConfigError, PayloadError
from servelens.contract.events import Exchange
from servelens.contract.identity import ModelIdentity
from servelens.contract.schema import ModelSchema
from servelens.contract.table import Table, concat
from servelens.contract.times import US
from servelens.io.kafka import consumer, end_of, partition_count
from servelens.io.kafka_settings import KafkaSettings

MOST_ROWS: Final = 1_000_000
_IDLE: Final = 10  # empty polls in a row, half a second each, after which the broker is taken to have no more

Spans = Mapping[int, tuple[int, int]]  # partition → [first, end) of offsets


@dataclass(slots=True)
class Stretch:
    """What was found. `tables` in the order read, `times` of each in Unix microseconds; `unread`: by reason."""

    tables: list[Table] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    unread: dict[str, int] = field(default_factory=dict)

    def table(self) -> tuple[Table, "np.ndarray[Any, np.dtype[np.int64]]"]:
        """All rows in order of time, and (rows,) when each came."""
        most = max((len(table.columns) for table in self.tables), default=0)
        # An answer without predictions has no such columns, and cannot be joined with those that have.
        pairs = [pair for pair in zip(self.times, self.tables, strict=True) if len(pair[1].columns) == most]
        pairs.sort(key=lambda pair: pair[0])
        times = np.repeat(np.array([at for at, _ in pairs], np.int64), [table.rows for _, table in pairs])
        return concat([table for _, table in pairs]), times


def between(kafka: KafkaSettings, topic: str, from_us: int, to_us: int) -> Spans:
    """The offsets whose records' times lie in [from, to); ConfigError for a topic that is not there."""
    with closing(consumer(kafka)) as client:
        places = [TopicPartition(topic, at) for at in range(partition_count(client, topic))]
        if not places:
            raise ConfigError("--topic-prefix", f"there is no topic {topic}", "Name the prefix the logger writes to.")
        starts = client.beginning_offsets(places)
        firsts, lasts = (client.offsets_for_times(dict.fromkeys(places, moment // 1000)) for moment in (from_us, to_us))
    return {
        where.partition: (
            _offset(firsts[where], starts[where]),
            _offset(lasts[where], None) or end_of(kafka, topic, where.partition),
        )
        for where in places
    }


def _offset(found: Any, otherwise: Any) -> Any:
    """The offset found for a time; `otherwise` where there is none, or the broker (the embedded one) keeps no times."""
    return otherwise if found is None or found.timestamp < 0 else int(found.offset)


def read(
    kafka: KafkaSettings, topic: str, spans: Spans, model: ModelSchema, times: tuple[int, int], most: int = MOST_ROWS
) -> Stretch:
    """The rows of a model whose event time lies in `times` (Unix microseconds, the end out), `most` of them."""
    found, pairing, rows, seen = Stretch(), Pairing(), 0, set[str]()
    for record in _records(kafka, topic, spans):
        try:
            event = records.decode(record.headers, record.value)
            whole = pairing.offer(event) if isinstance(event, Exchange) else None
            if whole is None or whole.exchangeid in seen or not _wanted(whole, model.identity, times):
                continue
            table = table_of(model, whole)
        except PayloadError as error:
            found.unread[error.reason] = found.unread.get(error.reason, 0) + 1
            continue
        seen.add(whole.exchangeid)
        found.tables.append(table)
        found.times.append(whole.arrived_us)
        rows += table.rows
        if rows >= most:
            break
    return found


def _wanted(exchange: Exchange, identity: ModelIdentity, times: tuple[int, int]) -> bool:
    if not times[0] <= exchange.arrived_us < times[1] or not succeeded(exchange):
        return False
    with suppress(PayloadError):
        paths.route_of(exchange.path)
        theirs = exchange.identity
        pairs = zip(identity.labels().values(), theirs.labels().values(), strict=True)
        return all(mine in ("", other) or other == "" for mine, other in pairs)
    return False


def _records(kafka: KafkaSettings, topic: str, spans: Spans) -> Iterator[Any]:
    """The records of the spans, partition by partition; what retention has taken is passed over."""
    with closing(consumer(kafka, max_poll_records=2000)) as client:
        for partition, (first, end) in sorted(spans.items()):
            yield from _partition(client, TopicPartition(topic, partition), first, end)


def _partition(client: KafkaConsumer, where: TopicPartition, first: int, end: int) -> Iterator[Any]:
    client.assign([where])
    client.seek(where, max(first, client.beginning_offsets([where])[where]))
    idle = 0
    while client.position(where) < end and idle < _IDLE:
        rows = client.poll(timeout_ms=500).get(where, [])
        idle = 0 if rows else idle + 1
        for record in rows:
            if record.offset >= end:
                return
            yield record


def seconds(first: int, last: int, slot_seconds: int) -> tuple[int, int]:
    """The event times of slots, both in, as `read` takes them."""
    return first * slot_seconds * US, (last + 1) * slot_seconds * US
