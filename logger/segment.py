"""One file of the spool: rows and the state beside them, in SQLite, and how a row's headers are packed.

Apart from `spool` since the shipper reads the same files from another process, where it writes nothing. WAL with
`synchronous=NORMAL`: a commit survives the death of any process, since it is in the page cache; only a power loss can
take the last ones back, never tear them, and the volume of a pod mostly dies with the machine anyway. A commit costs
no fsync, a checkpoint does. What a power loss may have taken back shows in the boot id kept in the state.
"""

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Self

import orjson

from logger.state import State, dumps, loads
from servelens.contract.errors import StateError

FORMAT: Final = 2
PAGE: Final = 8192  # bytes; a row of one small exchange is near 2 KiB
_NAME: Final = re.compile(r"segment-(\d{8,12})\.db")
_SIDES: Final = ("", "-wal", "-shm")  # the database first: without it nobody can open what is left
_BROKEN: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
_TOPIC: Final = "topic TEXT NOT NULL DEFAULT ''"
_SCHEMA: Final = f"""
PRAGMA page_size={PAGE}; PRAGMA journal_mode=WAL; PRAGMA user_version={FORMAT};
CREATE TABLE rows(seq INTEGER PRIMARY KEY, exchanges INTEGER NOT NULL, key BLOB NOT NULL, headers BLOB NOT NULL,
                  value BLOB NOT NULL, timestamp_ms INTEGER NOT NULL, {_TOPIC});
CREATE TABLE state(name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""


class Row(NamedTuple):
    """A record to be shipped. `exchanges` is 1 on the row that completes an exchange, else 0.

    `topic` is its topic's name after the prefix; empty for payloads.
    """

    seq: int
    exchanges: int
    key: bytes
    headers: bytes
    value: bytes
    timestamp_ms: int
    topic: str = ""

    @property
    def size(self) -> int:
        """Bytes of its parts."""
        return len(self.key) + len(self.headers) + len(self.value)


def pack_headers(headers: Iterable[tuple[str, bytes]]) -> bytes:
    """Headers as one blob of JSON; their values are UTF-8."""
    return orjson.dumps([(name, value.decode()) for name, value in headers])


def unpack_headers(blob: bytes) -> list[tuple[str, bytes]]:
    """The headers as the Kafka client takes them; StateError if the blob is damaged."""
    try:
        return [(name, value.encode()) for name, value in orjson.loads(blob)]
    except (ValueError, TypeError, AttributeError) as error:
        raise StateError("a spooled row's headers cannot be read") from error


def path_of(folder: Path, index: int) -> Path:
    """Where segment `index` lies."""
    return folder / f"segment-{index:08d}.db"


def indices(folder: Path) -> list[int]:
    """The segments that lie in the folder, oldest first."""
    try:
        return sorted(int(match[1]) for entry in folder.iterdir() if (match := _NAME.fullmatch(entry.name)))
    except FileNotFoundError:
        return []


def bytes_in(folder: Path) -> int:
    """Bytes of the files in a folder; what lies below it has a bound of its own."""
    total = 0
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                total += 0 if entry.is_dir() else entry.stat().st_size
    return total


def remove(folder: Path, index: int) -> None:
    """Delete a segment's files."""
    for side in _SIDES:
        path_of(folder, index).with_suffix(".db" + side).unlink(missing_ok=True)
    _unmark(folder, index)


def move(folder: Path, index: int, where: Path) -> None:
    """Move a segment's files to another folder of the volume, over older ones of that name."""
    where.mkdir(exist_ok=True)
    for side in _SIDES:
        path = path_of(folder, index).with_suffix(".db" + side)
        with contextlib.suppress(FileNotFoundError):
            path.rename(where / path.name)
    _unmark(folder, index)


@contextlib.contextmanager
def _telling(path: Path) -> Iterator[None]:
    """A damaged file is a StateError; a busy or full volume stays the sqlite3.OperationalError it is."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BROKEN or not isinstance(error, sqlite3.OperationalError):
            raise StateError(f"{path.name}: damaged ({error})") from error
        raise


class Segment:
    """An open segment. Every method raises StateError where the file is damaged."""

    def __init__(self, folder: Path, index: int, checkpoint_pages: int = 1000) -> None:
        self.index, self.path = index, path_of(folder, index)
        uri = f"{self.path.absolute().as_uri()}?mode=rw"
        self._db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5.0)
        try:
            self._begin(checkpoint_pages)
        except BaseException:
            self._db.close()
            raise

    def _begin(self, checkpoint_pages: int) -> None:
        with _telling(self.path):
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(f"PRAGMA wal_autocheckpoint={checkpoint_pages}")
            if version == 1:  # what an earlier version left here is shipped still
                version = self._upgraded()
        if version != FORMAT:
            raise StateError(f"{self.path.name}: is of format {version}, this version reads {FORMAT}")

    def _upgraded(self) -> int:
        self._db.execute("BEGIN IMMEDIATE")  # the shipper may be doing the same
        try:
            if self._db.execute("PRAGMA user_version").fetchone() == (1,):
                self._db.execute(f"ALTER TABLE rows ADD COLUMN {_TOPIC}")
                self._db.execute(f"PRAGMA user_version={FORMAT}")
        finally:
            self._db.execute("COMMIT")
        return FORMAT

    @classmethod
    def create(cls, folder: Path, index: int, state: State, checkpoint_pages: int = 1000) -> Self:
        """A new segment that begins with `state`; it appears under its name complete, or not at all."""
        draft = folder / "draft.new"
        for side in _SIDES:
            draft.with_suffix(".new" + side).unlink(missing_ok=True)
        db = sqlite3.connect(draft, isolation_level=None)
        try:
            db.executescript(_SCHEMA)
            db.execute("INSERT INTO state VALUES('state', ?)", (dumps(state),))
        finally:
            db.close()
        draft.rename(path_of(folder, index))
        return cls(folder, index, checkpoint_pages)

    def state(self) -> State:
        """The state as of the last commit."""
        with _telling(self.path):
            found = self._db.execute("SELECT value FROM state WHERE name='state'").fetchone()
        if found is None:
            raise StateError(f"{self.path.name}: holds no state")
        return loads(found[0])

    def write(self, rows: Sequence[Row], state: State) -> None:
        """Rows and state in one transaction; on any error nothing of it."""
        with _telling(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany("INSERT INTO rows VALUES(?,?,?,?,?,?,?)", rows)
                self._db.execute("UPDATE state SET value=? WHERE name='state'", (dumps(state),))
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def after(self, seq: int, limit: int, budget: int) -> list[Row]:
        """At most `limit` rows past `seq`, and no more once they hold `budget` bytes; at least one if there is one."""
        rows: list[Row] = []
        with _telling(self.path):
            found = self._db.execute("SELECT * FROM rows WHERE seq>? ORDER BY seq LIMIT ?", (seq, limit))
            # Closed even when left early: an open read keeps the writer's log from being reused.
            with contextlib.closing(found):
                for values in found:
                    rows.append(Row._make(values))
                    budget -= rows[-1].size
                    if budget <= 0:
                        break
        return rows

    def close(self) -> None:
        """Close it; the last one to do so folds the write-ahead log into the file."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()


def _unmark(folder: Path, index: int) -> None:
    path_of(folder, index).with_suffix(".bad").unlink(missing_ok=True)


def mark_damaged(folder: Path, index: int) -> None:
    """Tell the recorder, which alone moves files, that segment `index` cannot be read."""
    path_of(folder, index).with_suffix(".bad").touch()


def marked_damaged(folder: Path) -> list[int]:
    """The segments so marked."""
    return [int(path.stem.removeprefix("segment-")) for path in folder.glob("segment-*.bad")]


def newest_state(folder: Path) -> tuple[int, State] | None:
    """The newest segment that can be read, and its state; None for a folder without any.

    Raises sqlite3.OperationalError where a segment is there and only cannot be read just now.
    """
    for index in reversed(indices(folder)):
        with contextlib.suppress(StateError, FileNotFoundError):
            return index, _state_in(folder, index)
    return None


def _state_in(folder: Path, index: int) -> State:
    try:
        segment = Segment(folder, index)
    except sqlite3.OperationalError:
        path_of(folder, index).stat()  # deleted since it was listed: FileNotFoundError
        raise
    try:
        return segment.state()
    finally:
        segment.close()
