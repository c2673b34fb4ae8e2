"""The open end of one model's stream: panes not yet cut, where a window may close, and what came too late. No I/O.

A window is a union of whole slots, from where the last one ended to the slot in which enough rows had come. The active
evaluator proposes it from what it has read; the recorded cut then says it to all, with the panes offsets it rests on,
so that everyone takes the very same panes: those of its slots below its offsets. What comes after is late.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from detectors.journal import Cut
from detectors.pane import Pane, total
from detectors.profile import Profile

Offsets = Mapping[int, int]  # panes partition → first offset not read


@dataclass(frozen=True, slots=True)
class Closing:
    """When a window closes. `slots` and `most_slots` in slots: lateness, and the longest a window stays open."""

    n_target: int = 1000
    n_min: int = 100
    lateness: int = 3
    most_slots: int = 90


@dataclass(frozen=True, slots=True)
class Piece:
    """A pane where it lies in the panes log."""

    partition: int
    offset: int
    pane: Pane

    @property
    def slot(self) -> int:
        """The slot it was counted in."""
        return self.pane.slots[0]

    def below(self, offsets: Offsets) -> bool:
        """Whether it was read when those offsets were recorded."""
        return self.offset < offsets.get(self.partition, 0)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a cut took: the sum of its panes (None without any), and the rows that were late by then."""

    window: Pane | None
    late_rows: int


@dataclass(slots=True)
class OpenWindows:
    """The panes of one model and profile since the last cut; `first` is the first slot not yet cut."""

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

    def proposal(self, watermark: int, closing: Closing) -> tuple[int, int] | None:
        """The slots, both in, of the next window that may close; None while there is none.

        Slots up to `watermark - lateness` are complete. It closes at the slot in which `n_target` rows are reached, or
        with `n_min` once it has stood open for `most_slots`.
        """
        complete = watermark - closing.lateness
        rows: dict[int, int] = defaultdict(int)
        for piece in self.pieces:
            if piece.slot <= complete:
                rows[piece.slot] += piece.pane.rows
        if not rows:
            return None
        slots = sorted(rows)
        first = slots[0] if self.first is None else self.first
        sums = list(accumulate(rows[slot] for slot in slots))
        for slot, count in zip(slots, sums, strict=True):
            if count >= closing.n_target:
                return first, slot
        overdue = complete - slots[0] + 1 >= closing.most_slots
        return (first, complete) if overdue and sums[-1] >= closing.n_min else None

    def take(self, cut: Cut) -> Taken:
        """Take the cut's panes out; every panes partition must have been read up to the cut's offsets."""
        offsets = {int(partition): offset for partition, offset in cut.offsets.items()}
        inside = [piece for piece in self.pieces if cut.first <= piece.slot <= cut.last and piece.below(offsets)]
        chosen = {id(piece) for piece in inside}
        rest = [piece for piece in self.pieces if id(piece) not in chosen]
        self.late += [piece for piece in rest if piece.slot <= cut.last]
        self.pieces = [piece for piece in rest if piece.slot > cut.last]
        late = [piece for piece in self.late if piece.below(offsets)]
        self.late = [piece for piece in self.late if not piece.below(offsets)]
        self.first, self.offsets = cut.last + 1, offsets
        inside.sort(key=lambda piece: (piece.partition, piece.offset))
        window = total(piece.pane for piece in inside) if inside else None
        return Taken(window, sum(piece.pane.rows for piece in late))

    def to_mapping(self) -> dict[str, Any]:
        """The state as JSON, without the profile."""
        return {
            "first": self.first,
            "pieces": [(p.partition, p.offset, p.pane.to_mapping()) for p in self.pieces],
            "late": [(p.partition, p.offset, p.pane.to_mapping()) for p in self.late],
            "offsets": list(self.offsets.items()),
        }

    @classmethod
    def from_mapping(cls, profile: Profile, state: Mapping[str, Any]) -> "OpenWindows":
        """The windows a snapshot holds."""

        def pieces(rows: Sequence[tuple[int, int, Mapping[str, Any]]]) -> list[Piece]:
            return [Piece(partition, offset, Pane.from_mapping(profile, pane)) for partition, offset, pane in rows]

        return cls(profile, state["first"], pieces(state["pieces"]), pieces(state["late"]), dict(state["offsets"]))
