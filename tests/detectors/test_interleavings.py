"""The fence under 20,000 interleavings: what is accepted tiles every input, and the last owner standing gets on.

A world of two input logs (payloads and letters) that grow, lose their beginning to retention and are made anew under
the same name; a panes log; and workers that claim, count, send and read whenever the schedule lets them. One that is
not scheduled is a zombie: what it has prepared arrives later, claims included.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.fence import PAYLOADS, RETRY, Claim, Commit, Entry, Fold
from detectors.ownership import Batch, Ownership

INPUTS = (PAYLOADS, RETRY)


@dataclass
class Input:
    """A log of numbered records [start, end) under a topic id."""

    topic: int = 1
    start: int = 0
    end: int = 0


@dataclass
class World:
    """The input logs, and the panes log that decides what counts."""

    inputs: dict[str, Input] = field(default_factory=lambda: {name: Input() for name in INPUTS})
    log: list[Entry] = field(default_factory=list)

    def grow(self, rng: random.Random) -> None:
        self.inputs[PAYLOADS].end += rng.randint(1, 9)
        self.inputs[RETRY].end += rng.random() < 0.3

    def retain(self, rng: random.Random) -> None:
        """Retention takes the beginning of a log, read or not."""
        one = self.inputs[rng.choice(INPUTS)]
        one.start = min(one.end, one.start + rng.randint(1, 12))

    def recreate(self, rng: random.Random) -> None:
        """A log is deleted and made anew under its name."""
        name = rng.choice(INPUTS)
        self.inputs[name] = Input(self.inputs[name].topic + 1)


@dataclass
class Actor:
    """A worker: what it has read, what it has prepared, whether the coordinator has given it the partition."""

    name: str
    world: World
    ownership: Ownership = field(default_factory=lambda: Ownership(Fold()))
    assigned: bool = False
    claims: int = 0
    unsent: list[Entry] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)
    gaps: dict[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    topics: dict[str, int] = field(default_factory=dict)

    def assign(self) -> None:
        self.assigned = True
        self.ownership, self.unsent = Ownership(Fold()), []  # a fresh reader, as after a restart
        self.claim()

    def claim(self) -> None:
        self.claims += 1
        self.topics = {name: one.topic for name, one in self.world.inputs.items()}
        ids = {name: f"topic-{topic}" for name, topic in self.topics.items()}
        self.unsent = [self.ownership.claim(f"{self.name}{self.claims}", self.name, 1, ids)]

    def send(self) -> None:
        if self.unsent:
            self.world.log.append(self.unsent.pop(0))

    def read(self) -> None:
        at = self.ownership.fold.at
        if at < len(self.world.log):
            entry, before = self.world.log[at], self.ownership.state
            self.ownership.see(at, entry)
            if self.ownership.state == "owning" and (before != "owning" or isinstance(entry, Claim)):
                self.begin()

    def begin(self) -> None:
        """The own claim stands: from where the fold ended, or from where the log begins now, with the gap noted."""
        for name, one in self.world.inputs.items():
            counted = self.ownership.next(name)
            self.positions[name] = max(counted, one.start)
            self.gaps[name] = ((counted, one.start),) if one.start > counted else ()

    def work(self, rng: random.Random) -> None:
        own, name = self.ownership, rng.choice(INPUTS)
        one = self.world.inputs[name]
        if own.state != "owning" or own.in_flight >= 3 or one.topic != self.topics[name]:
            return  # a consumer of a topic that was made anew gets nothing of it until it asks again
        if one.start > self.positions[name]:  # retention was faster than we
            self.gaps[name] += ((self.positions[name], one.start),)
            self.positions[name] = one.start
        hi = min(one.end, self.positions[name] + rng.randint(1, 9))
        lo, gaps = self.positions[name], self.gaps[name]
        if hi > lo or gaps:
            panes = [{"model": model, "rows": hi - lo} for model in range(1 + hi % 3)]
            self.unsent += own.place(Batch(hi, panes, hi - lo, 0, gaps), name)
            self.positions[name], self.gaps[name] = hi, ()

    def mend(self) -> None:
        """Re-claim when fenced, or when a topic was made anew: only whom the coordinator has assigned may."""
        stale = any(one.topic != self.topics.get(name) for name, one in self.world.inputs.items())
        if self.assigned and not self.unsent and (self.ownership.state == "fenced" or stale):
            self.claim()


def check_tiling(log: Sequence[Entry]) -> dict[str, int]:
    """Every input's accepted batches tile its offsets, topic by topic; where each has got to."""
    fold, covered = Fold(), dict.fromkeys(INPUTS, 0)
    for offset, entry in enumerate(log):
        outcome = fold.apply(offset, entry)
        for name in outcome.reset:
            covered[name] = 0
        if outcome.verdict == "accepted" and isinstance(entry, Commit):
            assert entry.lo == covered[entry.input]
            assert len(outcome.panes) == 1 + entry.hi % 3
            lost = sum(end - start for start, end in entry.gaps)
            assert entry.records + lost == entry.hi - entry.lo  # counted or said to be lost, each once
            assert all(entry.lo <= start < end <= entry.hi for start, end in entry.gaps)
            covered[entry.input] = entry.hi
    return covered


def storm(rng: random.Random, workers: int, steps: int) -> None:
    """An interleaving, then calm: one owner is left, late sends of the others still arrive, and it must finish."""
    world = World()
    actors = [Actor(chr(97 + number), world) for number in range(workers)]
    for _ in range(steps):
        _step(world, actors, rng)
    check_tiling(world.log)
    survivor = _owner(actors, rng)
    strays = [actor for actor in actors if actor is not survivor]
    for _ in range(4000):
        if rng.random() < 0.2:
            rng.choice(strays).send()
        _act(survivor, rng)
        if _done(survivor, world) and not any(stray.unsent for stray in strays):
            break
    assert check_tiling(world.log) == {name: one.end for name, one in world.inputs.items()}
    assert {name: survivor.ownership.next(name) for name in INPUTS} == {n: one.end for n, one in world.inputs.items()}


def _step(world: World, actors: Sequence[Actor], rng: random.Random) -> None:
    chance = rng.random()
    if chance < 0.05:
        _owner(actors, rng)
    elif chance < 0.15:
        world.grow(rng)
    elif chance < 0.17:
        world.retain(rng)
    elif chance < 0.175:
        world.recreate(rng)
    else:
        _act(rng.choice(actors), rng)


def _owner(actors: Sequence[Actor], rng: random.Random) -> Actor:
    """Another owner; the others become zombies, which may still send what they hold."""
    for other in actors:
        other.assigned = False
    chosen = rng.choice(actors)
    chosen.assign()
    return chosen


def _act(actor: Actor, rng: random.Random) -> None:
    action = rng.randrange(4)
    if action == 0:
        actor.send()
    elif action == 1:
        actor.read()
    elif action == 2:
        actor.work(rng)
    else:
        actor.mend()


def _done(actor: Actor, world: World) -> bool:
    caught_up = actor.ownership.fold.at == len(world.log) and not actor.unsent and actor.ownership.state == "owning"
    return caught_up and all(actor.ownership.next(name) == one.end for name, one in world.inputs.items())


@pytest.mark.slow
@settings(max_examples=2000, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 4), st.integers(20, 120))
def test_no_interleaving_counts_a_row_twice_or_leaves_one_out(seed: int, workers: int, steps: int) -> None:
    for number in range(10):
        storm(random.Random(seed * 10 + number), workers, steps)
