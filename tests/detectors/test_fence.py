"""The fence under every interleaving: accepted batches tile the input, and the last owner standing gets on."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import fence
from detectors.fence import PAYLOADS, Claim, Commit, Entry, Fold, Heartbeat, Part
from detectors.ownership import Batch, Ownership
from servelens.contract.errors import PayloadError

TOPICS = {PAYLOADS: "topic-1"}


def claim(epoch: str, topic: str = "topic-1", **more: object) -> Claim:
    return Claim(epoch, "w", 1, {PAYLOADS: topic}, **more)  # type: ignore[arg-type]


def part(epoch: str, lo: int, hi: int, index: int = 0, count: int = 1) -> Part:
    return Part(epoch, PAYLOADS, lo, hi, index, count, {"rows": hi - lo, "model": index})


def commit(epoch: str, lo: int, hi: int, parts: int = 1, **more: object) -> Commit:
    return Commit(epoch, PAYLOADS, lo, hi, parts, hi - lo, 5, **more)  # type: ignore[arg-type]


def folded(entries: Sequence[Entry]) -> tuple[Fold, list[str]]:
    fold = Fold()
    return fold, [fold.apply(offset, entry).verdict for offset, entry in enumerate(entries)]


def test_a_batch_of_two_models_counts_as_one() -> None:
    fold, seen = folded([claim("a"), part("a", 0, 9, 0, 2), part("a", 0, 9, 1, 2), commit("a", 0, 9, 2)])
    assert seen == ["claimed", "pending", "pending", "accepted"]
    assert fold.next == {PAYLOADS: 9}


@pytest.mark.parametrize(
    ("entries", "last"),
    [
        ([claim("a"), commit("a", 0, 9, 1)], "rejected"),
        ([claim("a"), part("a", 0, 9, 1, 2), commit("a", 0, 9, 2)], "rejected"),
        ([claim("a"), part("a", 0, 9, 0, 2), commit("a", 0, 9, 2)], "rejected"),
        ([claim("a"), part("a", 3, 9), commit("a", 3, 9)], "rejected"),
        ([claim("a"), part("a", 0, 8), commit("a", 0, 9)], "rejected"),
        ([claim("a"), part("a", 0, 9), claim("b"), commit("a", 0, 9)], "foreign"),
        ([claim("a"), part("a", 0, 9), claim("b"), part("b", 0, 5), commit("b", 0, 5)], "accepted"),
        ([claim("a"), part("a", 0, 9), commit("a", 0, 9), part("a", 0, 9), commit("a", 0, 9)], "rejected"),
        ([claim("a"), part("a", 0, 9), claim("b"), commit("b", 0, 9)], "rejected"),
        ([claim("a"), commit("a", 0, 9, 0)], "accepted"),
        ([claim("a"), commit("a", 3, 9, 0)], "rejected"),
        ([claim("a"), commit("a", 0, 9, 0), commit("a", 0, 9, 0)], "rejected"),
        ([claim("a"), commit("a", 0, -1, 0)], "rejected"),
        ([claim("a"), Heartbeat("b", 7)], "foreign"),
    ],
)
def test_what_counts(entries: list[Entry], last: str) -> None:
    assert folded(entries)[1][-1] == last


def test_a_topic_made_anew_starts_at_nought_and_forgets_the_row_numbers() -> None:
    entries = [claim("a"), part("a", 0, 9), commit("a", 0, 9, seqs={"tap": 9}), claim("b", "topic-2")]
    fold, _ = folded(entries)
    assert fold.next == {PAYLOADS: 0}
    assert fold.seqs == {PAYLOADS: {}}


def test_a_rewind_goes_back_but_never_forward() -> None:
    entries: list[Entry] = [claim("a"), part("a", 0, 9), commit("a", 0, 9)]
    assert folded([*entries, claim("b", rewind={PAYLOADS: 4})])[0].next == {PAYLOADS: 4}
    assert folded([*entries, claim("b", rewind={PAYLOADS: 99})])[0].next == {PAYLOADS: 9}


def test_row_numbers_are_kept_for_the_taps_last_heard_of() -> None:
    fold = Fold()
    fold.apply(0, claim("a"))
    many = {f"tap-{number}": 1 for number in range(fence.MAX_TAPS + 5)}
    fold.apply(1, commit("a", 0, 1, 0, seqs=many))
    assert len(fold.seqs[PAYLOADS]) == fence.MAX_TAPS
    assert "tap-0" not in fold.seqs[PAYLOADS]


@given(st.binary(max_size=200) | st.sampled_from([b"{}", b'{"t":"claim"}', b'{"t":"part","x":1}', b"[1]", b"null"]))
def test_a_foreign_record_is_refused(value: bytes) -> None:
    with pytest.raises(PayloadError):
        fence.decode(value)


@given(st.integers(0, 5), st.integers(0, 50))
def test_entries_survive_the_wire(index: int, lo: int) -> None:
    entries: list[Entry] = [
        claim("a", rewind={PAYLOADS: lo}),
        part("a", lo, lo + 3, index),
        commit("a", lo, lo + 3, gaps=((1, 2),), seqs={"tap": 4}, accounting=({"offered": 1},)),
        Heartbeat("a", lo),
    ]
    assert [fence.decode(fence.encode(entry)) for entry in entries] == entries


# -- every interleaving ---------------------------------------------------------------------------------------


@dataclass
class World:
    """A payload log of `length` records, a panes log, and workers that act on what they have read so far."""

    length: int
    log: list[Entry] = field(default_factory=list)
    end_of_input: int = 0


@dataclass
class Actor:
    """A worker whose reads and sends happen whenever the schedule lets them: a zombie is one not scheduled."""

    name: str
    world: World
    ownership: Ownership = field(default_factory=lambda: Ownership(Fold()))
    assigned: bool = False
    claims: int = 0
    unsent: list[Entry] = field(default_factory=list)

    def assign(self) -> None:
        self.assigned = True
        self.ownership = Ownership(Fold())  # a fresh reader, as after a restart
        self.unsent = []
        self.claim()

    def claim(self) -> None:
        self.claims += 1
        self.unsent = [self.ownership.claim(f"{self.name}{self.claims}", self.name, 1, TOPICS)]

    def send(self) -> None:
        if self.unsent:
            self.world.log.append(self.unsent.pop(0))

    def read(self) -> None:
        at = self.ownership.fold.at
        if at < len(self.world.log):
            self.ownership.see(at, self.world.log[at])

    def work(self, rows: int) -> None:
        own = self.ownership
        if own.state == "owning" and own.sent < self.world.length and own.in_flight < 3:
            hi = min(self.world.length, own.sent + rows)
            panes = [{"lo": own.sent, "hi": hi, "model": model} for model in range(1 + rows % 3)]
            self.unsent += own.place(Batch(hi, panes, hi - own.sent, 0))

    def mend(self) -> None:
        """Re-claim when fenced: only the actor the coordinator has assigned may."""
        if self.ownership.state == "fenced" and self.assigned and not self.unsent:
            self.claim()


def accepted(log: Sequence[Entry]) -> list[tuple[int, int, int]]:
    fold, found = Fold(), []
    for offset, entry in enumerate(log):
        outcome = fold.apply(offset, entry)
        if outcome.verdict == "accepted" and isinstance(entry, Commit):
            found.append((entry.lo, entry.hi, len(outcome.panes)))
    return found


def check_tiling(world: World) -> int:
    covered = 0
    for lo, hi, panes in accepted(world.log):
        assert lo == covered
        assert panes == 1 + (hi - lo) % 3 or hi == world.length
        covered = hi
    return covered


ACTIONS = ("send", "read", "work", "mend")


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(2, 4))
def test_no_interleaving_counts_a_row_twice_or_leaves_one_out(seed: int, length: int, workers: int) -> None:
    rng = random.Random(seed)
    world = World(length)
    actors = [Actor(chr(97 + number), world) for number in range(workers)]
    for _ in range(200):
        actor = rng.choice(actors)
        if rng.random() < 0.04:
            for other in actors:
                other.assigned = False  # the others become zombies: they may still send what they hold
            actor.assign()
        action = rng.choice(ACTIONS)
        getattr(actor, action)(*([rng.randint(1, 9)] if action == "work" else []))
    check_tiling(world)
    # The storm is over: one owner is left, late sends of the others still arrive, and it must finish.
    for other in actors:
        other.assigned = False
    survivor = rng.choice(actors)
    survivor.assign()
    for _ in range(40 * length + 400):
        stray = rng.choice(actors)
        if stray is not survivor and rng.random() < 0.3:
            stray.send()
        for action in ACTIONS:
            getattr(survivor, action)(*([rng.randint(1, 9)] if action == "work" else []))
    assert check_tiling(world) == length
    assert survivor.ownership.next == length


def test_the_fold_restored_from_a_snapshot_anywhere_goes_on_alike() -> None:
    entries: list[Entry] = [claim("a")]
    for lo in range(0, 40, 4):
        entries += [part("a", lo, lo + 4, 0, 2), part("a", lo, lo + 4, 1, 2), commit("a", lo, lo + 4, 2)]
    whole, _ = folded(entries)
    for cut in range(len(entries)):
        fold, _ = folded(entries[:cut])
        again = Fold.from_mapping(json.loads(json.dumps(fold.to_mapping())))
        for offset in range(cut, len(entries)):
            again.apply(offset, entries[offset])
        assert again.to_mapping() == whole.to_mapping()
