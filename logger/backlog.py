"""The spool as the shipper sees it: rows in order across segments, while the recorder writes, rolls and deletes.

Read only: what cannot be read is marked for the recorder, who counts it and moves it aside.
"""

import logging
import sqlite3
from pathlib import Path
from typing import NamedTuple

from logger import segment as segments
from logger.segment import Row, Segment
from servelens.contract.errors import StateError

log = logging.getLogger(__name__)

Position = tuple[int, int]  # segment, seq: ordered as the rows are


class Entry(NamedTuple):
    """A row and where it stands."""

    segment: int
    tapid: str
    row: Row

    @property
    def position(self) -> Position:
        """Where it stands."""
        return self.segment, self.row.seq


class Backlog:
    """Reads on from any position; keeps the segment it is in open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: Segment | None = None
        self._tapid = ""

    def read(self, position: Position, limit: int, budget: int) -> list[Entry]:
        """At most `limit` rows past `position`, of one segment, and no more once they hold `budget` bytes.

        None when there is none yet, or when the next segment is damaged and the recorder has not yet moved it aside.
        """
        index, seq = position
        while True:
            # Listed before reading: where a later segment is there already, this one gets no more rows.
            here = segments.indices(self._folder)
            later = next((i for i in here if i > index), None)
            rows = self._rows(index, seq, limit, budget) if index in here else []
            if rows is None:
                return []
            if rows or later is None:
                return [Entry(index, self._tapid, row) for row in rows]
            index, seq = later, 0

    def _rows(self, index: int, seq: int, limit: int, budget: int) -> list[Row] | None:
        """Rows of one segment, empty if it was deleted meanwhile; None if it is damaged."""
        try:
            return self._opened(index).after(seq, limit, budget)
        except StateError as error:
            log.error("segment cannot be read", extra={"segment": index, "problem": str(error)})  # noqa: TRY400
            segments.mark_damaged(self._folder, index)
            self.close()
            return None
        except sqlite3.OperationalError:
            self.close()
            if segments.path_of(self._folder, index).exists():
                raise
            return []

    def _opened(self, index: int) -> Segment:
        if self._open is None or self._open.index != index:
            self.close()
            self._open = Segment(self._folder, index)
            self._tapid = self._open.state().tapid
        return self._open

    def close(self) -> None:
        """Close the segment it is in."""
        if self._open is not None:
            self._open.close()
        self._open = None
