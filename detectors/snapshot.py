"""Snapshots of the evaluation in the compacted state topic: a start that need not read the logs from their beginning.

A snapshot is a pure function of logs up to the offsets it states, so it does not matter who wrote it, a zombie
included. It is compressed and cut into chunks below the record limit; a head with its digest comes last and lists how
many. Writers alternate between two slots of their own: while one is being written the other is whole. A reader takes
the whole one that read furthest.
"""

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from detectors.fence import Fold
from servelens.io.kafka import read_all
from servelens.io.kafka_settings import KafkaSettings

CHUNK: Final = 700_000  # bytes; a record may hold about a million
MAX_INFLATED: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Head:
    """What makes a set of chunks a snapshot. `reach` orders snapshots: entries read of all logs together."""

    slot: str
    chunks: int
    sha256: str
    reach: int


def records(state: Mapping[str, Any], writer: str, turn: int, reach: int) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) pairs in the order to append them; `turn` counts up, so that slots alternate."""
    packed = zlib.compress(orjson.dumps(state, option=orjson.OPT_NON_STR_KEYS), 1)
    slot = f"{writer}/{turn % 2}"
    chunks = [packed[start : start + CHUNK] for start in range(0, len(packed), CHUNK)]
    for number, chunk in enumerate(chunks):
        yield f"{slot}/{number}".encode(), chunk
    head = {"chunks": len(chunks), "sha256": hashlib.sha256(packed).hexdigest(), "reach": reach}
    yield f"{slot}/head".encode(), orjson.dumps(head)


def newest(rows: Iterable[tuple[bytes, bytes | None]]) -> dict[str, Any] | None:
    """The state of the whole snapshot with the furthest reach among a state topic's records, None without one."""
    values = {key.decode(errors="replace"): value for key, value in rows}
    heads = sorted(_heads(values), key=lambda head: head.reach, reverse=True)
    return next((state for head in heads if (state := _state(head, values)) is not None), None)


def _heads(values: Mapping[str, bytes | None]) -> Iterator[Head]:
    for key, value in values.items():
        if key.endswith("/head") and value:
            fields = orjson.loads(value)
            yield Head(key.removesuffix("/head"), fields["chunks"], fields["sha256"], fields["reach"])


def _state(head: Head, values: Mapping[str, bytes | None]) -> dict[str, Any] | None:
    chunks = [values.get(f"{head.slot}/{number}") for number in range(head.chunks)]
    if None in chunks:
        return None
    packed = b"".join(chunk for chunk in chunks if chunk)
    if hashlib.sha256(packed).hexdigest() != head.sha256:
        return None
    state: dict[str, Any] = orjson.loads(zlib.decompressobj().decompress(packed, MAX_INFLATED))
    return state


def read(kafka: KafkaSettings, topic: str) -> dict[str, Any] | None:
    """The newest whole snapshot in a state topic."""
    return newest((row.key, row.value) for row in read_all(kafka, topic, 0) if row.key)


def folds(kafka: KafkaSettings, topic: str) -> dict[int, Fold]:
    """The fold of every panes partition as of the newest snapshot; empty without one."""
    state = read(kafka, topic)
    return {int(p): Fold.from_mapping(fold) for p, fold in state["folds"].items()} if state else {}
