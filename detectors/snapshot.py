"""Snapshots of the evaluation in the compacted state topic: a start that need not read the logs from their beginning.

A snapshot is a pure function of logs up to the offsets it states, so it does not matter who wrote it, a zombie
included. It is compressed and cut into chunks below the record limit; a head with its digest comes last and lists how
many. Writers alternate between two slots of their own: while one is being written the other is whole. A reader takes
the whole one that read furthest.
"""

import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import orjson

from detectors import chunks
from detectors.fence import Fold
from servelens.io.kafka import read_all
from servelens.io.kafka_settings import KafkaSettings

MAX_INFLATED: Final = 1 << 30


def records(state: Mapping[str, Any], writer: str, turn: int, reach: int) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) pairs in the order to append them; `turn` counts up, so that slots alternate.

    `reach` orders snapshots: entries read of all logs together.
    """
    packed = zlib.compress(orjson.dumps(state, option=orjson.OPT_NON_STR_KEYS), 1)
    return chunks.split(f"{writer}/{turn % 2}", packed, {"reach": reach})


def newest(rows: Iterable[tuple[bytes, bytes | None]]) -> dict[str, Any] | None:
    """The state of the whole snapshot with the furthest reach among a state topic's records, None without one."""
    held: dict[str, dict[int, bytes]] = defaultdict(dict)
    heads: dict[str, Mapping[str, Any]] = {}
    for key, value in rows:
        slot, _, number = key.decode(errors="replace").rpartition("/")
        if number == chunks.HEAD and value:
            heads[slot] = orjson.loads(value)
        elif number.isdecimal() and value:
            held[slot][int(number)] = value
    ordered = sorted(heads, key=lambda slot: int(heads[slot]["reach"]), reverse=True)
    whole = (chunks.join(heads[slot], held[slot]) for slot in ordered)
    packed = next((data for data in whole if data is not None), None)
    if packed is None:
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
