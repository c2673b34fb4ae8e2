"""Something larger than a record in a compacted topic: numbered chunks, then a head with their number and digest.

Keys are `line/number` and `line/head`, so a reader knows a whole one from one that was being written or overwritten.
Snapshots and announced profiles are kept so.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

CHUNK: Final = 700_000  # bytes; a record may hold about a million
HEAD: Final = "head"


def split(line: str, data: bytes, facts: Mapping[str, Any]) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) pairs in the order to append them; `facts` go into the head."""
    chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    for number, chunk in enumerate(chunks):
        yield f"{line}/{number}".encode(), chunk
    head = {"chunks": len(chunks), "sha256": hashlib.sha256(data).hexdigest(), **facts}
    yield f"{line}/{HEAD}".encode(), orjson.dumps(head)


def join(head: Mapping[str, Any], chunks: Mapping[int, bytes]) -> bytes | None:
    """The data, None where a chunk is missing or is another's."""
    numbers = range(head["chunks"])
    if not all(number in chunks for number in numbers):
        return None
    data = b"".join(chunks[number] for number in numbers)
    return data if hashlib.sha256(data).hexdigest() == head["sha256"] else None
