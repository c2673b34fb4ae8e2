"""The count of exchanges: one small mapped file a tap process, and the sum that must come out.

    offered = shipped + waiting + Σ reasons            (the unit is the exchange)

The file is written by the tap with plain stores into shared memory, so it survives the tap's death by any signal; a
lock held while the tap lives tells the living from the dead. The recorder settles a dead one: what was offered and
neither committed nor counted under another reason was lost with the process, and is counted as `crash`.
"""

import fcntl
import mmap
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from servelens.contract.errors import StateError

# Reasons an exchange is not kept; the first ones are the tap's, and have a place in its file.
TAP_REASONS: Final = ("over_budget", "unparsable", "upgraded", "synthetic")
# `refused` is the shipper's: an exchange of which the broker would not even take a record without bodies.
RECORDER_REASONS: Final = ("not_logged", "filtered", "sampled", "spool_full", "spool_lost", "crash", "refused")
REASONS: Final = TAP_REASONS + RECORDER_REASONS

_MAGIC: Final = b"SLACCT01"
_FIELDS: Final = ("offered", "handed", *TAP_REASONS)
# In the machine's own order: read on no other one, and the tap counts in place.
_LAYOUT: Final = struct.Struct(f"=8s{len(_FIELDS)}Q")
_PLACES: Final = {name: place for place, name in enumerate(_FIELDS)}
SUFFIX: Final = ".account"


@dataclass(frozen=True, slots=True)
class TapCounts:
    """What one tap process counted: exchanges offered, frames handed over (numbered 1 to `handed`), drops by reason."""

    offered: int
    handed: int
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def open(self) -> int:
        """Exchanges begun and not yet handed over or dropped."""
        return self.offered - self.handed - sum(self.reasons.values())


class AccountFile:
    """The tap's side: creates the file, holds its lock while the process lives, and counts by stores into the map."""

    def __init__(self, folder: Path, stream: str) -> None:
        self.path = folder / (stream + SUFFIX)
        folder.mkdir(parents=True, exist_ok=True)
        # Written beside and renamed while locked: a reader never sees a file that is unlocked and alive.
        draft = self.path.with_suffix(".new")
        self._fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(self._fd, _LAYOUT.pack(_MAGIC, *(0 for _ in _FIELDS)))
            draft.rename(self.path)
        except OSError:  # a full volume
            os.close(self._fd)
            draft.unlink(missing_ok=True)
            raise
        self._map = mmap.mmap(self._fd, _LAYOUT.size)
        self._whole = memoryview(self._map)
        self._cells = self._whole[len(_MAGIC) :].cast("Q")

    def add(self, name: str, more: int = 1) -> int:
        """Count one more, or `more`, under `offered`, `handed` or a tap reason; the new count."""
        place = _PLACES[name]
        count = self._cells[place] + more
        self._cells[place] = count
        return count

    def counts(self) -> TapCounts:
        """What has been counted so far."""
        return _counts(dict(zip(_FIELDS, self._cells, strict=True)))

    def close(self) -> None:
        """Let go of the lock: from here on the file counts as a dead tap's."""
        self._cells.release()
        self._whole.release()
        self._map.close()
        os.close(self._fd)


def _counts(cells: Mapping[str, int]) -> TapCounts:
    return TapCounts(cells["offered"], cells["handed"], {reason: cells[reason] for reason in TAP_REASONS})


def read_account(path: Path) -> tuple[TapCounts, bool]:
    """A tap's counts, and whether that tap still lives; StateError if the file is not one of ours."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            alive = False
        except BlockingIOError:
            alive = True
        raw = file.read(_LAYOUT.size)
    if len(raw) != _LAYOUT.size or not raw.startswith(_MAGIC):
        raise StateError(f"{path}: no account file of this version; move it away")
    return _counts(dict(zip(_FIELDS, _LAYOUT.unpack(raw)[1:], strict=True))), alive


@dataclass(frozen=True, slots=True)
class Sum:
    """The whole account of one logger. `waiting` is measured, not derived: where something leaks, the sum fails."""

    offered: int
    shipped: int
    waiting: int
    reasons: Mapping[str, int]

    @property
    def adds_up(self) -> bool:
        """Whether offered = shipped + waiting + Σ reasons."""
        return self.offered == self.shipped + self.waiting + sum(self.reasons.values())
