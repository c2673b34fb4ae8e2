"""The open end of one profile's stream: panes not yet cut, where a window may close, and what came too late. No I/O.

A window is a union of whole slots, from where the last one ended to the slot in which enough rows had come, and it is
the same for every revision of the model, so that they can be compared. The active evaluator proposes it from what it
has read; the recorded cut then says it to all, with the panes offsets it rests on, so that everyone takes the very same
panes: those of its slots below its offsets. What comes after is late.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from detectors.journal import Cut
from detectors.pane import Pane, total
from detectors.profile import Profile
from servelens.contract.errors import PayloadError
from servelens.contract.identity import ModelIdentity

log = logging.getLogger(__name__)

Offsets = Mapping[int, int]  # panes partition → first offset not read


@dataclass(frozen=True, slots=True)
class Closing:
    """When a window closes; all but the first two in slots.

    `lateness`: how long a slot waits for late events. `least_slots`, `most_slots`: how long a window is, unless fewer
    than `n_min` rows have come by then; these are carried on for up to `carry_slots`.
    """

    n_target: int = 1000
    n_min: int = 100
    lateness: int = 3
    least_slots: int = 6
    most_slots: int = 90
    carry_slots: int = 8640


@dataclass(frozen=True, slots=True)
class Piece:
    """A pane, where its batch's commit lies in the panes log, and the input it was counted from with the batch's span.

    The commit's offset, since that is when the pane began to count.
    """

    partition: int
    offset: int
    pane: Pane
    source: tuple[str, int, int] = ("", 0, 0)

    @property
    def slot(self) -> int:
        """The slot it was counted in."""
        return self.pane.slots[0]

    def below(self, offsets: Offsets) -> bool:
        """Whether it was read when those offsets were recorded."""
        return self.offset < offsets.get(self.partition, 0)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a cut took of one revision: the sum of its panes, the rows late by then, and where its payloads lie.

    `pointers`: input → partition → [first, end) of offsets that hold all of it, among others.
    """

    window: Pane
    late_rows: int
    pointers: Mapping[str, Mapping[str, tuple[int, int]]]


@dataclass(slots=True)
class OpenWindows:
    """The panes of one profile since the last cut; `first` is the first slot not yet cut."""

    profile: Profile
    first: int | None = None
    pieces: list[Piece] = field(default_factory=list)
    late: list[Piece] = field(default_factory=list)
    offsets: dict[int, int] = field(default_factory=dict)  # of the last cut

    def add(self, piece: Piece) -> bool:
        """Keep a pane; False if its window has already closed."""
        on_time = self.first is None or piece.slot >= self.first
        (self.pieces if on_time else self.late).append(piece)
        return on_time

    def proposal(
        self, watermark: int, closing: Closing, since: int = -1, until: int | None = None
    ) -> tuple[int, int] | None:
        """The slots, both in, of the next window that may close; None while there is none.

        Slots up to `watermark - lateness` are complete. It closes at the slot in which the revision with most rows
        reaches `n_target` and every other one `n_min`; with `n_min` once it has stood open for `most_slots`, with
        anything after `carry_slots`, and with the slot before `until`, from which another profile counts, as one did
        before `since`.
        """
        complete = watermark - closing.lateness
        by_slot: dict[int, dict[ModelIdentity, int]] = defaultdict(lambda: defaultdict(int))
        for piece in self.pieces:
            if piece.slot <= complete:
                by_slot[piece.slot][piece.pane.identity] += piece.pane.size
        if not by_slot:
            return None
        slots = sorted(by_slot)
        first = slots[0] if self.first is None else max(self.first, since)
        sums: dict[ModelIdentity, int] = defaultdict(int)
        for slot in slots:
            for identity, rows in by_slot[slot].items():
                sums[identity] += rows
            full = max(sums.values()) >= closing.n_target and min(sums.values()) >= closing.n_min
            if full and slot - first + 1 >= closing.least_slots:
                return first, slot
        return self._overdue(first, slots[0], complete, max(sums.values()), closing, until)

    @staticmethod
    def _overdue(
        first: int, oldest: int, complete: int, rows: int, closing: Closing, until: int | None
    ) -> tuple[int, int] | None:
        if until is not None and complete >= until - 1 and oldest < until:
            return first, until - 1
        stood = complete - oldest + 1
        enough = rows >= closing.n_min and complete - first + 1 >= closing.least_slots
        if (stood >= closing.most_slots and enough) or stood >= closing.carry_slots:
            return first, complete
        return None

    @property
    def oldest(self) -> int | None:
        """The first slot that holds panes not yet cut."""
        return min((piece.slot for piece in self.pieces), default=None)

    def take(self, cut: Cut) -> dict[ModelIdentity, Taken]:
        """Take the cut's panes out, by revision; every panes partition must have been read up to the cut's offsets."""
        offsets = {int(partition): offset for partition, offset in cut.offsets.items()}
        inside = [piece for piece in self.pieces if cut.first <= piece.slot <= cut.last and piece.below(offsets)]
        chosen = {id(piece) for piece in inside}
        rest = [piece for piece in self.pieces if id(piece) not in chosen]
        self.late += [piece for piece in rest if piece.slot <= cut.last]
        self.pieces = [piece for piece in rest if piece.slot > cut.last]
        late = [piece for piece in self.late if piece.below(offsets)]
        self.late = [piece for piece in self.late if not piece.below(offsets)]
        self.first, self.offsets = cut.last + 1, offsets
        found = {}
        for identity in sorted({piece.pane.identity for piece in (*inside, *late)}):
            mine = [piece for piece in inside if piece.pane.identity == identity]
            mine.sort(key=lambda piece: (piece.partition, piece.offset))
            window = _sum(mine) or Pane.empty(self.profile, identity, cut.slots)
            behind = sum(piece.pane.rows for piece in late if piece.pane.identity == identity)
            found[identity] = Taken(window, behind, _pointers(mine))
        return found

    def to_mapping(self) -> dict[str, Any]:
        """The state as JSON, without the profile."""
        return {
            "first": self.first,
            "pieces": [(p.partition, p.offset, p.pane.to_mapping(), p.source) for p in self.pieces],
            "late": [(p.partition, p.offset, p.pane.to_mapping(), p.source) for p in self.late],
            "offsets": list(self.offsets.items()),
        }

    @classmethod
    def from_mapping(cls, profile: Profile, state: Mapping[str, Any]) -> "OpenWindows":
        """The windows a snapshot holds."""

        def pieces(rows: Sequence[Sequence[Any]]) -> list[Piece]:
            return [Piece(p, at, Pane.seal(profile, pane), (s[0], s[1], s[2])) for p, at, pane, s in rows]

        return cls(profile, state["first"], pieces(state["pieces"]), pieces(state["late"]), dict(state["offsets"]))


def _sum(pieces: Iterable[Piece]) -> Pane | None:
    """The panes' sum; those whose counts are none of their profile's are left out, as everyone does."""
    opened = []
    for piece in pieces:
        try:
            opened.append(piece.pane.opened())
        except PayloadError as error:
            log.warning("a pane is damaged", extra={"partition": piece.partition, "error": str(error)})
    return total(opened) if opened else None


def _pointers(pieces: Iterable[Piece]) -> dict[str, dict[str, tuple[int, int]]]:
    found: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    for piece in pieces:
        name, lo, hi = piece.source
        start, end = found[name].get(str(piece.partition), (lo, hi))
        found[name][str(piece.partition)] = (min(start, lo), max(end, hi))
    return dict(found)
