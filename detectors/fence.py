"""The fence: a partition of the panes topic read as a log that says which batches count. No I/O.

The same fold runs in the worker that writes the partition, in its successor and in every evaluator, so all agree. A
worker appends a claim, then batches: parts 0 … k-1 and one commit over the offsets [lo, hi) of the payload partition of
the same number. A batch counts if and only if its epoch is the last claim's, it starts where the last accepted batch of
its input ended, and all its parts came before its commit. Whatever zombies, retries and late claims append, accepted
batches tile the input without hole or overlap, except where a gap is written down.

Design notes: a fencing token read back from the log (Kleppmann, "How to do distributed locking", 2016), with the log
itself as the arbiter, so that any broker with a total order per partition will do.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

import orjson

from servelens.contract.errors import PayloadError

PAYLOADS: Final = "payloads"  # the input name of `<prefix>.payloads`
RETRY: Final = "retry"  # that of `<prefix>.retry.<group>`: dead letters, once more
MAX_TAPS: Final = 1000  # taps a partition remembers the last row number of; the longest silent one is forgotten first


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker takes the partition. `topics`: input → topic id; `rewind`: inputs whose log ends before `next`.

    `slot`: length in seconds of the slots it counts in, 0 for a claim that does not say.
    """

    epoch: str
    worker: str
    generation: int
    topics: Mapping[str, str]
    rewind: Mapping[str, int] = field(default_factory=dict)
    slot: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """One pane of a batch, as the mapping `Pane.to_mapping` makes, under its window key."""

    epoch: str
    input: str
    lo: int
    hi: int
    index: int
    count: int
    pane: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Commit:
    """The end of a batch. `gaps`: offset ranges the log no longer held; `seqs`: tapid → last row number read."""

    epoch: str
    input: str
    lo: int
    hi: int
    parts: int
    records: int
    slot: int  # the newest event-time slot read so far
    gaps: tuple[tuple[int, int], ...] = ()
    seqs: Mapping[str, int] = field(default_factory=dict)
    accounting: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The owner has read all there is, at a time in that slot: silence is not delay."""

    epoch: str
    slot: int


Entry = Claim | Part | Commit | Heartbeat
_KINDS: Final[Mapping[str, type[Claim] | type[Part] | type[Commit] | type[Heartbeat]]] = {
    "claim": Claim,
    "part": Part,
    "commit": Commit,
    "heartbeat": Heartbeat,
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


def encode(entry: Entry) -> bytes:
    """An entry as the value of a record of the panes topic."""
    return orjson.dumps({"t": _NAMES[type(entry)]} | {name: getattr(entry, name) for name in entry.__slots__})


def decode(value: bytes | None) -> Entry:
    """An entry from a record's value; PayloadError for anything that is none."""
    try:
        fields = orjson.loads(value or b"")
        kind = _KINDS[fields.pop("t")]
        if kind is Commit:
            fields["gaps"] = tuple((int(a), int(b)) for a, b in fields.get("gaps", ()))
            fields["accounting"] = tuple(fields.get("accounting", ()))
        return kind(**fields)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise PayloadError("panes", "a record that is no claim, part, commit or heartbeat") from error


Verdict = Literal["claimed", "accepted", "rejected", "pending", "foreign", "heartbeat"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an entry did. `panes`: (offset of the part, pane mapping) of an accepted batch. `reset`: inputs begun anew.

    `reason`: why a batch or a part of it was rejected.
    """

    verdict: Verdict
    entry: Entry
    panes: tuple[tuple[int, Mapping[str, Any]], ...] = ()
    reset: tuple[str, ...] = ()
    reason: str = ""


@dataclass(slots=True)
class _Parts:
    lo: int
    hi: int
    count: int
    panes: list[tuple[int, Mapping[str, Any]]]


@dataclass(slots=True)
class Fold:
    """The state of one panes partition after the entries seen so far. `at` = the offset of the next entry."""

    at: int = 0
    epoch: str = ""
    topics: dict[str, str] = field(default_factory=dict)
    next: dict[str, int] = field(default_factory=dict)
    seqs: dict[str, dict[str, int]] = field(default_factory=dict)
    slot: int = -1
    slot_seconds: int = 0
    _open: dict[str, _Parts] = field(default_factory=dict)

    def apply(self, offset: int, entry: Entry) -> Outcome:
        """Fold one entry, in offset order; entries below `at` must not come again."""
        self.at = offset + 1
        if isinstance(entry, Claim):
            return self._claim(entry)
        if entry.epoch != self.epoch:
            return Outcome("foreign", entry)
        if isinstance(entry, Heartbeat):
            self.slot = max(self.slot, entry.slot)
            return Outcome("heartbeat", entry)
        return self._part(offset, entry) if isinstance(entry, Part) else self._commit(entry)

    def skip(self, offset: int) -> None:
        """Pass over a record that is no entry: every reader does the same."""
        self.at = offset + 1

    def _claim(self, claim: Claim) -> Outcome:
        self.epoch = claim.epoch
        self.slot_seconds = self.slot_seconds or claim.slot
        self._open.clear()
        reset = [name for name, topic in claim.topics.items() if self.topics.get(name, topic) != topic]
        self.topics.update(claim.topics)
        for name in reset:
            self.next[name], self.seqs[name] = 0, {}
        for name, offset in claim.rewind.items():
            if offset < self.next.get(name, 0):
                self.next[name] = offset
                reset.append(name)
        return Outcome("claimed", claim, reset=tuple(reset))

    def _part(self, offset: int, part: Part) -> Outcome:
        if part.lo != self.next.get(part.input, 0):
            return Outcome("rejected", part, reason="wrong_start")
        if part.index == 0:
            self._open[part.input] = _Parts(part.lo, part.hi, part.count, [])
        parts = self._open.get(part.input)
        if parts is None or (parts.lo, parts.hi, parts.count) != (part.lo, part.hi, part.count):
            return Outcome("rejected", part, reason="missing_parts")
        if part.index != len(parts.panes):
            return Outcome("rejected", part, reason="missing_parts")
        parts.panes.append((offset, part.pane))
        return Outcome("pending", part)

    def _commit(self, commit: Commit) -> Outcome:
        parts = self._open.pop(commit.input, None)
        panes = tuple(parts.panes) if parts and (parts.lo, parts.hi) == (commit.lo, commit.hi) else ()
        if commit.lo != self.next.get(commit.input, 0) or commit.hi < commit.lo:
            return Outcome("rejected", commit, reason="wrong_start")
        if len(panes) != commit.parts:
            return Outcome("rejected", commit, reason="missing_parts")
        self.next[commit.input] = commit.hi
        self.slot = max(self.slot, commit.slot)
        self._remember(self.seqs.setdefault(commit.input, {}), commit.seqs)
        return Outcome("accepted", commit, panes)

    @staticmethod
    def _remember(seqs: dict[str, int], newer: Mapping[str, int]) -> None:
        for tap, seq in newer.items():
            seqs.pop(tap, None)  # to the end: the order is by last sign of life
            seqs[tap] = seq
        while len(seqs) > MAX_TAPS:
            del seqs[next(iter(seqs))]

    def to_mapping(self) -> dict[str, Any]:
        """The state as JSON; a snapshot is taken between batches or within one alike."""
        return {
            "at": self.at, "epoch": self.epoch, "topics": self.topics, "next": self.next, "slot": self.slot,
            "slot_seconds": self.slot_seconds,
            "seqs": {name: list(taps.items()) for name, taps in self.seqs.items()},
            "open": {name: asdict(parts) for name, parts in self._open.items()},
        }  # fmt: skip

    @classmethod
    def from_mapping(cls, state: Mapping[str, Any]) -> "Fold":
        """The fold a snapshot holds."""
        fold = cls(state["at"], state["epoch"], dict(state["topics"]), dict(state["next"]), slot=state["slot"])
        fold.slot_seconds = state["slot_seconds"]
        fold.seqs = {name: {tap: seq for tap, seq in taps} for name, taps in state["seqs"].items()}  # noqa: C416 -- pairs from JSON are lists
        fold._open = {
            name: _Parts(p["lo"], p["hi"], p["count"], [(o, pane) for o, pane in p["panes"]])
            for name, p in state["open"].items()
        }
        return fold
