"""The spool's one writer: batches into segments, the bound over all files, and repair.

Runs in the recorder, in one process. It alone creates, deletes and moves segment files: so the bound is kept in one
place, and no name is made and unmade by two. The shipper reads, moves its cursor, and marks what it cannot read.
"""

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, get_args
from uuid import uuid4

from logger import cursor as cursors
from logger import segment as segments
from logger.segment import Row, Segment
from logger.state import (
    EMPTY,
    Counts,
    Cursor,
    Reported,
    State,
    added,
    evict,
    heard,
    lose,
    rebuilt,
    restored,
    rolled,
    without,
)
from servelens.contract.errors import ConfigError, StateError

log = logging.getLogger(__name__)

Policy = Literal["drop-new", "drop-old"]
SEGMENT_BYTES: Final = 64 << 20
LEAST_BYTES: Final = 1 << 20
CORRUPT: Final = "corrupt"
_RESERVE: Final = 128 << 10  # bytes left for what is no row: a new segment, its shared memory, state


@dataclass(slots=True)
class Batch:
    """What one commit holds: rows numbered on from the state's `seq`, and what else became of the frames read.

    `offered` counts what no tap's account does: what came by the bridge.
    """

    rows: list[Row] = field(default_factory=list)
    exchanges: int = 0
    size: int = 0
    offered: int = 0
    frames: dict[str, int] = field(default_factory=dict)  # stream → last frame in here
    taken: int = 0  # frames in here, spooled or not
    missing: int = 0  # frames that a repaired spool once had
    reasons: Counter[str] = field(default_factory=Counter)
    reported: Reported | None = None

    def add(self, row: Row) -> None:
        """One more row."""
        self.rows.append(row)
        self.exchanges += row.exchanges
        self.size += row.size

    def kept(self, state: State) -> State:
        """The state once the rows are in."""
        spooled = replace(state, spooled=state.spooled + self.exchanges, reported=self.reported or state.reported)
        if self.rows:
            spooled = replace(spooled, seq=self.rows[-1].seq)
        return self._advanced(spooled, self.reasons)

    def dropped(self, state: State) -> State:
        """The state once it is known that the rows do not fit."""
        return self._advanced(state, self.reasons + Counter(spool_full=self.exchanges))

    def _advanced(self, state: State, reasons: Counter[str]) -> State:
        streams, counted = {**state.streams, **self.frames}, added(state.reasons, reasons)
        state = replace(state, offered=state.offered + self.offered, streams=streams, reasons=counted)
        state = lose(state, "spool_lost", self.missing) if self.missing else state
        return heard(state, self.frames) if state.elders else state


def boot_id(path: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """Names the machine's boot; empty where the kernel does not say."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


class Spool:
    """The spool, open for writing. Rows that do not fit are dropped and counted by `policy`.

    `handed` are the frames handed over by each stream that has an account file. StateError if another recorder has it
    open, or where the newest segment turns out damaged: then `repair`. sqlite3.OperationalError: nothing was committed,
    try again later.
    """

    def __init__(
        self,
        folder: Path,
        limit: int = 512 << 20,
        policy: Policy = "drop-new",
        *,
        segment_bytes: int = SEGMENT_BYTES,
        boot: Callable[[], str] = boot_id,
        handed: Counts | None = None,
        given_up: Callable[[float], bool] = lambda _: True,
    ) -> None:
        if limit < LEAST_BYTES:
            raise ConfigError("--spool-bytes", f"{limit} is too small", f"Give at least {LEAST_BYTES} bytes.")
        if policy not in get_args(Policy):
            raise ConfigError("--spool-policy", f"{policy!r} is none", "Use drop-new or drop-old.")
        self.folder, self.limit, self.policy = folder, limit, policy
        # A quarter at most, so that giving up the oldest segment loses no more than that.
        self.segment_bytes = min(segment_bytes, limit // 4)
        self._pages = max(8, min(1000, self.segment_bytes // 8 // segments.PAGE))
        self._boot = boot()
        self._lock = cursors.wait_lock(folder, cursors.WRITER_LOCK, given_up)
        self._written = 0
        try:
            self._segment = self._opened(handed or {}, set())
        except BaseException:
            os.close(self._lock)
            raise

    # -- opening and repair

    def _opened(self, handed: Counts, distrusted: set[int]) -> Segment:
        # The cursor stands still meanwhile: what is counted as lost here must not be counted as shipped as well.
        with cursors.moving(self.folder, patience=10.0) as still:
            if not still:
                raise StateError(f"{self.folder}: the shipper keeps the cursor's lock; restart it")
            here = set(segments.indices(self.folder))
            found = segments.newest_state(self.folder)
            newest, old = found or (0, EMPTY)
            cursor = cursors.load(self.folder) or rebuilt(old)
            bad = (distrusted | set(segments.marked_damaged(self.folder)) | {i for i in here if i > newest}) & here
            self.state = restored(old, cursor, here - bad, handed)
            if found is None or max(bad, default=-1) >= newest or self._lost_its_end(old, newest, cursor):
                segment = self._begun_anew(max(here | {newest, cursor.segment, *self._corrupt()}) + 1)
            else:
                segment = self._resumed(newest, old)
        self._cleared(here, bad)
        return segment

    def _resumed(self, index: int, old: State) -> Segment:
        segment = Segment(self.folder, index, self._pages)
        self._written = segment.path.stat().st_size
        if self.state != old:
            segment.write((), self.state)
        return segment

    def _cleared(self, here: set[int], bad: set[int]) -> None:
        for index in bad:
            log.error("segment moved aside: its unshipped exchanges are spool_lost", extra={"segment": index})
            segments.move(self.folder, index, self.folder / CORRUPT)
        for index in here - bad - set(self.state.segments):
            segments.remove(self.folder, index)  # given up or shipped just before the recorder died

    def _lost_its_end(self, state: State, newest: int, cursor: Cursor) -> bool:
        """Whether row numbers may have been given that this state does not know: a power loss took commits back."""
        known = (newest, state.seq)
        return state.boot != self._boot or cursor.total > state.spooled or (cursor.segment, cursor.seq) > known

    def _begun_anew(self, index: int) -> Segment:
        self.state = rolled(replace(self.state, tapid=uuid4().hex, boot=self._boot, seq=0), index)
        self._written = 0
        return Segment.create(self.folder, index, self.state, self._pages)

    def _corrupt(self) -> list[int]:
        return segments.indices(self.folder / CORRUPT)

    def repair(self, handed: Counts) -> None:
        """Give the damaged newest segment up: go on from the newest state that can be read, under a new tapid."""
        self._segment.close()
        self._segment = self._opened(handed, {self._segment.index})

    def close(self) -> None:
        """Close the files and let go of the spool."""
        self._segment.close()
        os.close(self._lock)

    # -- writing

    def commit(self, batch: Batch) -> bool:
        """One transaction for all of it; False if the rows did not fit and were counted as spool_full."""
        if batch.rows and batch.rows[0].seq != self.state.seq + 1:
            raise StateError(f"row {batch.rows[0].seq} does not follow {self.state.seq}")
        fits = not batch.rows or self._make_room(batch.size)
        if fits and self._written and self._written + batch.size > self.segment_bytes:
            self._roll()
        self._write(batch.rows if fits else (), batch.kept(self.state) if fits else batch.dropped(self.state))
        self._written += batch.size if fits else 0
        return fits

    def update(self, change: Callable[[State], State]) -> None:
        """Commit a change of the state alone."""
        self._write((), change(self.state))

    def _write(self, rows: Iterable[Row], state: State) -> None:
        self._segment.write(list(rows), state)
        self.state = state

    def _roll(self) -> None:
        index = self._segment.index + 1
        state = rolled(self.state, index)
        segment = Segment.create(self.folder, index, state, self._pages)
        self._segment.close()
        self._segment, self.state, self._written = segment, state, 0

    # -- the bound

    def bytes(self) -> int:
        """Bytes of all files on disk; those of further workers lie below, with spools of their own."""
        return segments.bytes_in(self.folder) + segments.bytes_in(self.folder / CORRUPT)

    def _fits(self, size: int) -> bool:
        # The write-ahead log grows up to its checkpoint, by commits without rows as well, and is then folded into the
        # file; a row takes whole pages, so twice its bytes at worst, in the log and in the file.
        wal = self._pages * segments.PAGE
        with contextlib.suppress(FileNotFoundError):
            wal = max(wal, self._segment.path.with_suffix(".db-wal").stat().st_size)
        return self.bytes() + wal + 4 * size + _RESERVE <= self.limit

    def _make_room(self, size: int) -> bool:
        if self._fits(size):
            return True
        self.tidy()
        for index in self._corrupt():
            segments.remove(self.folder / CORRUPT, index)
        if not self._fits(size):
            self._drop_shipped()
        while not self._fits(size):
            if self.policy == "drop-new" or 4 * size > self.limit or not self._give_up_oldest():
                return False
        return True

    def _drop_shipped(self) -> None:
        """Let go of the newest segment if nothing in it waits: a small spool would stay full of what is shipped."""
        index, cursor = self._segment.index, cursors.load(self.folder)
        if self._written and cursor is not None and (cursor.segment, cursor.seq) == (index, self.state.seq):
            self._roll()
            self.update(lambda state: without(state, index))
            segments.remove(self.folder, index)

    def _give_up_oldest(self) -> bool:
        """Evict the oldest segment, never the newest: it carries the state. False if nothing is left to give up."""
        oldest = min(self.state.segments)
        if oldest == self._segment.index:
            if not self._written:
                return False
            self._roll()
        return self._evicted(oldest, "spool_full", segments.remove)

    def _evicted(self, index: int, reason: str, away: Callable[[Path, int], None]) -> bool:
        # Under the cursor's lock: what is counted here must not be counted as shipped in the same moment.
        with cursors.moving(self.folder) as still:
            if not still:
                return False
            cursor = cursors.load(self.folder) or rebuilt(self.state)
            self.update(lambda state: evict(state, index, cursor, reason))
        away(self.folder, index)
        return True

    def tidy(self) -> None:
        """Delete what is shipped, and move aside what the shipper could not read; StateError if that is the newest."""
        cursor = cursors.load(self.folder)
        for index in sorted(self.state.segments):
            if cursor is not None and index < cursor.segment:
                self.update(lambda state, index=index: without(state, index))  # type: ignore[misc]
                segments.remove(self.folder, index)
        for index in segments.marked_damaged(self.folder):
            if index == self._segment.index:
                raise StateError(f"segment {index}: the shipper cannot read it")
            self._set_aside(index)

    def _set_aside(self, index: int) -> None:
        def away(folder: Path, index: int) -> None:
            segments.move(folder, index, folder / CORRUPT)

        if index not in self.state.segments:
            away(self.folder, index)
        elif self._evicted(index, "spool_lost", away):
            log.error("segment moved aside: its unshipped exchanges are spool_lost", extra={"segment": index})
