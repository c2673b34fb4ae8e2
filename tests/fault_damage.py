"""Bytes overwritten in a segment of the spool: whole pages of the trees in it, in the database or its log.

Only pages whose damage SQLite must notice: what is overwritten inside a long value shows in no checksum of its own.
"""

import os
from pathlib import Path
from random import Random
from typing import Final

from logger.segment import PAGE

_TREES: Final = (0x02, 0x05, 0x0A, 0x0D)  # first byte of a B-tree's page
_LOG_HEAD, _FRAME_HEAD = 32, 24


def damage(spool: Path, chance: Random) -> int:
    """Overwrite up to three pages of one segment; how many it were."""
    files = sorted(spool.glob("segment-*.db")) + sorted(spool.glob("segment-*.db-wal"))
    chance.shuffle(files)
    for path in files:
        try:
            pages = _pages(path)
            if pages:
                chosen = chance.sample(pages, min(len(pages), chance.randint(1, 3)))
                _overwrite(path, chosen, chance)
                return len(chosen)
        except FileNotFoundError:  # shipped, and deleted
            continue
    return 0


def _pages(path: Path) -> list[int]:
    """Where the trees' pages begin."""
    start, step = (_LOG_HEAD + _FRAME_HEAD, PAGE + _FRAME_HEAD) if path.suffix.endswith("wal") else (0, PAGE)
    data = path.read_bytes()
    return [at for at in range(start, len(data) - PAGE + 1, step) if data[at] in _TREES]


def _overwrite(path: Path, places: list[int], chance: Random) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        for place in places:
            os.pwrite(descriptor, b"\xee" + chance.randbytes(PAGE - 1), place)
    finally:
        os.close(descriptor)
