"""Streaming equals counting at once, bit for bit: whatever the partitions, batches, workers and order."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from risk_model import make_record

from detectors import fence, journal
from detectors.book import Book
from detectors.evaluation import Evaluation, Group
from detectors.fence import Fold
from detectors.intake import Intake, table_of
from detectors.ownership import Ownership
from detectors.pane import Pane
from detectors.profile import Profile
from detectors.statistics import Settings
from detectors.windows import Closing
from servelens.contract import records
from servelens.contract.events import Exchange, Record
from servelens.contract.table import concat

START = 1_800_000_000  # seconds
SLOTS = 6
GROUP = Group("g", 1, Settings(), Closing(), heartbeat=0)


@dataclass(frozen=True, slots=True)
class Row:
    """A payload record as a consumer hands it out."""

    offset: int
    timestamp: int
    headers: list[tuple[str, bytes]]
    value: bytes | None
    key: bytes | None = None
    timestamp_type: int = 1


@pytest.fixture(scope="module")
def made() -> list[tuple[int, Record]]:
    """(slot, record) of some hundred exchanges of one to twelve rows, numbered by their taps."""
    rng, found = np.random.default_rng(3), []
    for seq in range(1, 161):
        slot = int(rng.integers(0, SLOTS))
        at_us = (START + slot) * 1_000_000 + int(rng.integers(0, 1_000_000))
        shift = float(rng.normal())
        found.append((slot, make_record(rng, int(rng.integers(1, 13)), at_us, seq, shift, tapid=f"tap-{seq % 3}")))
    return found


@pytest.fixture(scope="module")
def at_once(profile: Profile, made: list[tuple[int, Record]]) -> Pane:
    """All rows of all exchanges, counted in one call."""
    tables = []
    for _, record in made:
        event = records.decode(list(record.headers), record.value)
        assert isinstance(event, Exchange)
        tables.append(table_of(profile.model, event))
    return Pane.of(profile, concat(tables), slot=START, exchanges=len(made))


def streamed(profile: Profile, made: Sequence[tuple[int, Record]], chance: random.Random) -> Pane:
    """The window that a stream gives: partitions, batches, workers that take over, and logs read in any order."""
    partitions, book = chance.randint(1, 5), Book([profile], 1)
    lots: list[list[Record]] = [[] for _ in range(partitions)]
    for _, record in made:
        lots[chance.randrange(partitions)].append(record)
    logs = [panes_of(book, lot, chance) for lot in lots]
    evaluation = Evaluation(book, GROUP, partitions)
    evaluation.journal_entry(0, journal.Claim("e", "x"))
    left = [(partition, offset) for partition, log in enumerate(logs) for offset in range(len(log))]
    while left:
        partition = chance.choice([place[0] for place in left])
        offset = evaluation.folds[partition].at
        evaluation.pane_entry(partition, offset, logs[partition][offset])
        left.remove((partition, offset))
    ends = {str(partition): len(log) for partition, log in enumerate(logs)}
    evaluation.journal_entry(1, journal.Cut("e", 1, "m", profile.digest, START, START + SLOTS - 1, ends))
    (judged,) = evaluation.settle()
    (model,) = evaluation.watched[profile.digest].models.values()
    assert judged.verdict["rows"] == model.monitor.ring[-1].rows
    return model.monitor.ring[-1]


def panes_of(book: Book, lot: Sequence[Record], chance: random.Random) -> list[fence.Entry]:
    """One partition's panes log, of any batches, by one worker or by several of which some die with open batches."""
    log: list[fence.Entry] = []
    fold, epoch = Fold(), 0
    owner = Ownership(fold)

    def append(entries: Sequence[fence.Entry]) -> None:
        for entry in entries:
            log.append(fence.decode(fence.encode(entry)))
            owner.see(len(log) - 1, log[-1])

    append([owner.claim("0", "w", 1, {"payloads": "t"})])
    intake, position = Intake(book, 1, 86_400, {}, -1), 0
    while position < len(lot) or intake.records:
        if chance.random() < 0.05:  # another worker takes over: what was not yet committed is read again
            epoch += 1
            append([owner.claim(str(epoch), "w", 1, {"payloads": "t"})])
            position, intake = owner.next(), Intake(book, 1, 86_400, owner.seqs(), -1)
        size = chance.choice((1, 2, 7, 40))
        for record in lot[position : position + size]:
            intake.take(Row(position, START * 1000, list(record.headers), record.value))
            position += 1
        if chance.random() < 0.7 or position >= len(lot):
            append(owner.place(intake.close(position)))
    return log


@given(st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_any_split_gives_the_window_of_one_count(
    profile: Profile, made: list[tuple[int, Record]], at_once: Pane, seed: int
) -> None:
    window = streamed(profile, made, random.Random(seed))
    assert (window.rows, window.exchanges) == (at_once.rows, at_once.exchanges)
    assert window.counts.tolist() == at_once.counts.tolist()
    assert window.to_mapping()["counts"] == at_once.to_mapping()["counts"]
