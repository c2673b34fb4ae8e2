"""From the spool to Kafka, at least once and in order: what is sent, what is sent otherwise, and when the cursor moves.

Apart from `shipper`, the process around it, which makes producers. A row the broker refuses is sent alone, then as a
marker without bodies, and is given up and counted (`refused`) only when even that is not taken: it blocks nothing.
"""

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from kafka.errors import MessageSizeTooLargeError

from logger import cursor as cursors
from logger import segment as segments
from logger.backlog import Backlog, Entry, Position
from logger.flight import Flight
from logger.refusal import Headers, is_refusal, marker
from logger.segment import unpack_headers
from logger.state import EMPTY, Cursor, Span, rebuilt, waiting
from servelens.contract.errors import StateError

log = logging.getLogger(__name__)

SAVE_AFTER: Final = 0.1  # seconds between two moves of the cursor; each costs an fsync
IDLE: Final = 0.05  # seconds between looks for new rows
BUSY: Final = 0.005

# How a row that was refused is sent the next time.
ALONE, MARKER, GIVEN_UP = 1, 2, 3


def advanced(cursor: Cursor, landed: Iterable[tuple[Entry, bool]], live: Mapping[int, Span]) -> Cursor:
    """The cursor past these rows, each with whether it was given up.

    Rows of a segment that is no longer `live` were counted as lost by whoever gave it up, and are not counted again.
    """
    segment, total, shipped, refused = cursor.segment, cursor.total, cursor.shipped, cursor.refused
    for entry, given_up in landed:
        if entry.segment != segment:
            segment = entry.segment
            total = max(total, live[segment][0]) if segment in live else total
        counted = entry.row.exchanges if segment in live else 0
        total += counted
        shipped += 0 if given_up else counted
        refused += counted if given_up else 0
        cursor = Cursor(entry.tapid, segment, entry.row.seq, total, shipped, refused)
    return cursor


class Watch(Protocol):
    """Who is told of rows on their way."""

    def sent(self, position: Position, headers: Headers) -> None:
        """A row was given to the client."""

    def landed(self, positions: Sequence[Position]) -> None:
        """Rows were acknowledged, or let pass."""

    def ended(self) -> None:
        """The producer is gone."""


class Shipping:
    """One spool's rows to their topics. `session` is one producer's life; the caller makes the next one.

    `topics` has each topic by the name rows call it; that of payloads is empty.
    """

    def __init__(
        self, folder: Path, topics: Mapping[str, str], clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep, watch: Watch | None = None,
    ) -> None:  # fmt: skip
        self._watch = watch
        self._folder, self._topics, self._clock, self._sleep = folder, topics, clock, sleep
        self._backlog = Backlog(folder)
        self._cursor: Cursor | None = None
        self._read_to: Position = (0, 0)
        self._landed: list[tuple[Entry, bool]] = []  # not yet behind the cursor
        self._saved_at = 0.0
        self._acked: set[Position] = set()  # beyond a row that failed, in the last session
        self._doubtful: dict[Position, int] = {}
        self._alone: Position | None = None  # a doubtful row under way

    @property
    def cursor(self) -> Cursor:
        """Where it is; made anew for a volume that has none."""
        if self._cursor is None:
            _, state = segments.newest_state(self._folder) or (0, EMPTY)
            self._cursor = cursors.load(self._folder) or rebuilt(state)
        return self._cursor

    def session(self, producer: Any, ends: Callable[[], float | None]) -> BaseException | None:
        """Ship until a fault, which is returned, or until the end: `ends()` is None, or the seconds of grace left.

        In its grace it ships what is there, and ends when nothing is left or the time is over.
        """
        flight = Flight(producer, self._clock)
        self._alone = None
        self._read_to = self._landed[-1][0].position if self._landed else (self.cursor.segment, self.cursor.seq)
        trouble: BaseException | None = None
        try:
            while flight.fault is None and self._step(flight, ends()):
                pass
        except sqlite3.OperationalError as error:  # the volume is busy or full
            trouble = error
        self._finish(flight, ends() or 0.0)
        return flight.fault or trouble

    def _step(self, flight: Flight, grace: float | None) -> bool:
        sent = self._fill(flight)
        self._land(flight)
        if self._clock() - self._saved_at >= SAVE_AFTER:
            self._advance()
        if grace is not None and (grace <= 0 or not (sent or flight)):
            return False
        if not sent:
            self._sleep(BUSY if flight else IDLE)
        return True

    # -- sending

    def _fill(self, flight: Flight) -> int:
        rows, size = flight.room
        if rows <= 0 or size <= 0 or (self._alone is not None and flight):
            return 0
        self._alone = None
        entries = self._backlog.read(self._read_to, rows, size)
        for count, entry in enumerate(entries):
            level = self._doubtful.get(entry.position, 0) if self._doubtful else 0
            if flight.fault is not None or (level and flight):
                return count
            self._send(flight, entry, level)
            self._read_to = entry.position
            if level:
                # What is doubtful flies alone: its failure must not take others with it.
                self._alone = entry.position
                return count + 1
        return len(entries)

    def _send(self, flight: Flight, entry: Entry, level: int) -> None:
        if level == GIVEN_UP or (self._acked and entry.position in self._acked):
            flight.skip(entry)
            return
        try:
            headers = unpack_headers(entry.row.headers)
        except StateError as error:
            self._refuse(flight, entry, error)
            return
        topic = self._topics.get(entry.row.topic)
        if topic is None:
            self._refuse(flight, entry, ValueError("a topic this shipper is not told of"))
            return
        cut = marker(headers, entry.row.value) if level == MARKER else headers
        if cut is None:
            self._refuse(flight, entry, ValueError("no exchange: nothing can be left out"))
            return
        value, timestamp = (b"", None) if level == MARKER else (entry.row.value, entry.row.timestamp_ms)
        try:
            flight.send(entry, topic, cut, value, timestamp)
            if self._watch is not None:
                self._watch.sent(entry.position, cut)
        except MessageSizeTooLargeError as error:
            # The client itself says so, and nothing was sent: no need to fly alone first.
            if level == MARKER:
                self._refuse(flight, entry, error)
            else:
                self._doubtful[entry.position] = MARKER
                self._send(flight, entry, MARKER)

    def _refuse(self, flight: Flight, entry: Entry, error: Exception) -> None:
        log.error("row given up", extra={"tapid": entry.tapid, "row": entry.row.seq, "problem": str(error)})
        self._doubtful[entry.position] = GIVEN_UP
        flight.skip(entry)

    # -- landing

    def _take_down(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            level = self._doubtful.pop(entry.position, 0) if self._doubtful else 0
            self._landed.append((entry, level == GIVEN_UP))
            if self._acked:
                self._acked.discard(entry.position)

    def _land(self, flight: Flight) -> None:
        entries = flight.landed()
        if entries:
            self._take_down(entries)
            if self._watch is not None:
                self._watch.landed([entry.position for entry in entries])

    def _advance(self) -> None:
        if not self._landed:
            return
        # Under the lock, with the state as it is: a segment given up just now is not counted as shipped as well.
        with cursors.moving(self._folder) as still:
            found = segments.newest_state(self._folder) if still else None
            if found is None:
                return
            cursor = advanced(self.cursor, self._landed, found[1].segments)
            cursors.save(self._folder, cursor)
        self._cursor, self._saved_at = cursor, self._clock()
        self._landed.clear()

    def _finish(self, flight: Flight, grace: float) -> None:
        flight.close(grace)
        self._land(flight)
        with contextlib.suppress(sqlite3.OperationalError):  # what has landed stays noted
            self._advance()
        if self._watch is not None:
            self._watch.ended()
        down, failed = flight.out_of_turn()
        self._acked |= down
        for position, error in failed.items():
            if is_refusal(error):
                self._doubtful[position] = self._doubtful.get(position, 0) + 1
                log.warning("row refused", extra={"row": position[1], "problem": type(error).__name__})

    def remaining(self) -> int:
        """Exchanges spooled and not shipped."""
        found = segments.newest_state(self._folder)
        return waiting(found[1], self.cursor, segments.indices(self._folder)) if found else 0

    def close(self) -> None:
        """Close the spool."""
        self._backlog.close()
