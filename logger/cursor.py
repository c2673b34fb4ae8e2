"""How far the shipper is, durably: one small file, replaced whole, and the locks around it.

Apart from the spool, whose only writer is the recorder: this file's only writer is the shipper. Position and counts
stand in one value and change together, so whatever the moment of a SIGKILL, an exchange is counted as shipped once.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

import orjson

from logger.state import Cursor
from servelens.contract.errors import StateError

FILE: Final = "cursor.json"
SHIPPER_LOCK: Final = "shipper.lock"  # held for life by the one shipper
WRITER_LOCK: Final = "writer.lock"  # held for life by the one recorder
_CURSOR_LOCK: Final = "cursor.lock"  # held while the cursor moves, or while something it has not reached is given up


def load(folder: Path) -> Cursor | None:
    """The cursor; None if none was ever saved or its file cannot be read: `state.rebuilt` makes one."""
    try:
        return Cursor(**orjson.loads((folder / FILE).read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def save(folder: Path, cursor: Cursor) -> None:
    """Replace the cursor: after a crash of process or machine there is the old one or the new one."""
    draft = folder / (FILE + ".new")
    with draft.open("wb") as file:
        file.write(orjson.dumps(asdict(cursor)))
        file.flush()
        os.fsync(file.fileno())
    draft.rename(folder / FILE)


@contextlib.contextmanager
def moving(folder: Path, patience: float = 0.5, clock: Callable[[], float] = time.monotonic) -> Iterator[bool]:
    """Keep the cursor, and what lies past it, as they are for the block; False if another had it for `patience` s."""
    lock = try_lock(folder, _CURSOR_LOCK)
    deadline = clock() + patience
    while lock is None and clock() < deadline:
        time.sleep(0.005)
        lock = try_lock(folder, _CURSOR_LOCK)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


def try_lock(folder: Path, name: str) -> int | None:
    """Take a lock file's lock: its descriptor, to be kept while it is held, or None. Death lets go of it."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def wait_lock(folder: Path, name: str, given_up: Callable[[float], bool]) -> int:
    """Wait for a lock whose holder is about to end; `given_up(seconds)` waits and says whether to stop."""
    while (descriptor := try_lock(folder, name)) is None:
        if given_up(0.1):
            raise StateError(f"{folder / name}: another process works on this spool; give each logger its own folder")
    return descriptor
