"""The evaluators' state: whoever replays the logs, in whatever interleaving and from whichever snapshot, agrees."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from detectors import fence, journal, snapshot
from detectors.book import Book
from detectors.evaluation import Evaluation, Group
from detectors.intake import Intake
from detectors.ownership import Ownership
from detectors.profile import Profile
from detectors.statistics import Settings
from detectors.windows import Closing
from servelens.contract.events import Record

PARTITIONS = 2
CLOSING = Closing(n_target=400, lateness=1, least_slots=1, most_slots=900)
GROUP = Group("g", 1, Settings(n_target=400), CLOSING, heartbeat=0)
START = 1_800_000_000


@dataclass
class Row:
    """A payload record as a consumer hands it out."""

    offset: int
    timestamp: int
    headers: list[tuple[str, bytes]]
    value: bytes | None
    key: bytes | None
    timestamp_type: int = 1


@dataclass
class Logs:
    """What lies in Kafka: a panes log a partition, and the journal."""

    panes: list[list[fence.Entry]] = field(default_factory=lambda: [[] for _ in range(PARTITIONS)])
    cuts: list[journal.Entry] = field(default_factory=list)


def fresh(profile: Profile) -> Evaluation:
    return Evaluation(Book([profile], 1), GROUP, PARTITIONS)


def feed(evaluation: Evaluation, logs: Logs, rng: random.Random | None = None) -> list[dict[str, Any]]:
    """Read all logs to their ends, the next entry each time from a log chosen by `rng`; the verdicts, in order."""
    chance, found = rng or random.Random(0), []
    while True:
        left = [p for p in range(PARTITIONS) if evaluation.folds[p].at < len(logs.panes[p])]
        left += [PARTITIONS] if evaluation.journal.at < len(logs.cuts) else []
        if not left:
            return found
        log = chance.choice(left)
        if log == PARTITIONS:
            at = evaluation.journal.at
            evaluation.journal_entry(at, logs.cuts[at])
        else:
            at = evaluation.folds[log].at
            evaluation.pane_entry(log, at, logs.panes[log][at])
        found += [dict(judged.verdict) for judged in evaluation.settle()]


@pytest.fixture(scope="module")
def story(profile: Profile, make_record: Callable[..., Record]) -> tuple[Logs, list[dict[str, Any]]]:
    """Two partitions, 24 slots of 100 rows each, one late batch, a shift half-way, and what the live evaluator said."""
    rng, logs, live = np.random.default_rng(11), Logs(), fresh(profile)
    logs.cuts.append(journal.Claim("e", "live"))
    owners = [Ownership(fence.Fold()) for _ in range(PARTITIONS)]
    verdicts: list[dict[str, Any]] = []
    for partition, owner in enumerate(owners):
        logs.panes[partition].append(owner.claim(f"w{partition}", "w", 1, {"payloads": "t"}))
        owner.see(0, logs.panes[partition][0])
    offsets, seq = [0] * PARTITIONS, 0
    for slot in range(24):
        for partition, owner in enumerate(owners):
            intake = Intake(Book([profile], 1), 1, 86_400, owner.seqs(), owner.fold.slot)
            for _ in range(10):
                seq += 1
                when = slot - 9 if slot == 20 and seq % 10 == 0 else slot
                made = make_record(rng, 5, (START + when) * 1_000_000, seq, 1.5 if slot >= 12 else 0.0)
                row = Row(offsets[partition], (START + slot) * 1000, list(made.headers), made.value, made.key)
                intake.take(row)
                offsets[partition] += 1
            for entry in owner.place(intake.close(offsets[partition])):
                logs.panes[partition].append(fence.decode(fence.encode(entry)))
                owner.see(len(logs.panes[partition]) - 1, logs.panes[partition][-1])
        verdicts += feed(live, logs)
        logs.cuts += live.proposals(live.watermark(), "e")
        verdicts += feed(live, logs)
    return logs, verdicts


Story = tuple[Logs, list[dict[str, Any]]]


def test_the_story_has_windows_a_shift_and_late_rows(story: Story) -> None:
    _, verdicts = story
    assert len(verdicts) >= 4
    assert all(verdict["rows"] >= 400 for verdict in verdicts)
    assert sum(verdict["late"] for verdict in verdicts) == 10
    assert verdicts[0]["state"] == "ok"
    drifted = {c["column"] for verdict in verdicts for c in verdict["columns"] if c["state"] == "drift"}
    assert drifted == {"age"}


@pytest.mark.parametrize("seed", range(8))
def test_any_interleaving_of_the_logs_gives_the_same_verdicts(profile: Profile, story: Story, seed: int) -> None:
    logs, verdicts = story
    assert feed(fresh(profile), logs, random.Random(seed)) == verdicts


def test_a_snapshot_taken_anywhere_goes_on_to_the_same_verdicts(profile: Profile, story: Story) -> None:
    logs, verdicts = story
    rng = random.Random(5)
    for _ in range(6):
        first = fresh(profile)
        part = Logs([log[: rng.randrange(len(log))] for log in logs.panes], logs.cuts[: rng.randrange(len(logs.cuts))])
        before = feed(first, part)
        if first.queue:
            continue
        second = fresh(profile)
        assert second.restore(json.loads(json.dumps(first.to_mapping())))
        assert before + feed(second, logs) == verdicts


def test_a_snapshot_of_other_statistics_is_not_taken_up(profile: Profile, story: Story) -> None:
    state = fresh(profile).to_mapping()
    other = Evaluation(Book([profile]), Group("g", 10, Settings(), Closing()), PARTITIONS)
    assert not other.restore(state)


def test_a_zombie_s_cut_changes_nothing(profile: Profile, story: Story) -> None:
    logs, verdicts = story
    cut = next(entry for entry in logs.cuts if isinstance(entry, journal.Cut))
    stolen = Logs(logs.panes, [])
    for entry in logs.cuts:
        stolen.cuts.append(entry)
        if isinstance(entry, journal.Cut):
            stolen.cuts.append(journal.Cut("zombie", entry.number + 1, cut.model, cut.digest, 0, 1 << 40, cut.offsets))
            stolen.cuts.append(entry)  # and a repeat
    assert feed(fresh(profile), stolen) == verdicts


def test_what_is_published_is_told_by_the_journal(profile: Profile, story: Story) -> None:
    logs, verdicts = story
    evaluation = fresh(profile)
    feed(evaluation, logs)
    assert sorted(evaluation.unpublished) == list(range(1, len(verdicts) + 1))
    evaluation.journal_entry(len(logs.cuts), journal.Done("e", 2))
    assert min(evaluation.unpublished) == 3


@pytest.mark.parametrize("seed", range(6))
def test_a_cut_between_a_batch_s_parts_and_its_commit_is_of_before_the_batch(
    profile: Profile, story: Story, seed: int
) -> None:
    """Whoever has read on when the cut comes must take what those took who had not."""
    logs, chance = story[0], random.Random(seed)
    first = next(entry for entry in logs.cuts if isinstance(entry, journal.Cut))
    commits = [at for at, entry in enumerate(logs.panes[0]) if isinstance(entry, fence.Commit)]
    middle = commits[chance.randrange(2, 6)]
    cut = journal.Cut("e", 1, first.model, first.digest, first.first, first.first + 5, {"0": middle, "1": middle})
    early, late = fresh(profile), fresh(profile)
    cuts: list[journal.Entry] = [journal.Claim("e", "x"), cut]
    exactly = Logs([log[:middle] for log in logs.panes], cuts)
    assert feed(early, exactly) == feed_panes_first(late, Logs(logs.panes, cuts))


def feed_panes_first(evaluation: Evaluation, logs: Logs) -> list[dict[str, Any]]:
    for partition, log in enumerate(logs.panes):
        for offset, entry in enumerate(log):
            evaluation.pane_entry(partition, offset, entry)
    return feed(evaluation, logs)


def test_without_a_heartbeat_due_only_what_changed_is_published(profile: Profile, story: Story) -> None:
    logs, verdicts = story
    evaluation = Evaluation(Book([profile], 1), Group("g", 1, GROUP.statistics, CLOSING, heartbeat=3600), PARTITIONS)
    said = feed(evaluation, logs)
    assert said == verdicts  # what is judged does not depend on what is told
    told = {judged.verdict["id"] for held in evaluation.unpublished.values() for judged in held}
    changed = [
        verdict["id"]
        for before, verdict in zip([{}, *verdicts[:-1]], verdicts, strict=True)
        if verdict["transitions"] or verdict["state"] != before.get("state")
    ]
    assert told == set(changed)
    assert 1 < len(told) < len(verdicts)


# -- snapshots in the state topic -----------------------------------------------------------------------------


def rows(states: Sequence[tuple[dict[str, Any], str, int, int]]) -> list[tuple[bytes, bytes]]:
    return [row for state, writer, turn, reach in states for row in snapshot.records(state, writer, turn, reach)]


def test_the_whole_snapshot_that_read_furthest_is_taken() -> None:
    noise = np.random.default_rng(1).bytes(3_000_000).hex()
    old, new = {"n": 1, "noise": noise}, {"n": 2, "noise": noise[::-1]}
    written = rows([(old, "a", 1, 10), (new, "a", 2, 20)])
    assert len(written) > 4
    assert snapshot.newest(written) == new
    assert snapshot.newest(written[:-1]) == old  # its head never came
    torn = [row for row in written if row[0] != b"a/0/1"]
    assert snapshot.newest(torn) == old
    assert snapshot.newest([]) is None


def test_a_chunk_overwritten_by_the_next_turn_makes_the_old_one_void() -> None:
    first, third = {"n": 1}, {"n": 3}
    written = rows([(first, "a", 1, 10), (third, "a", 3, 30)])
    assert snapshot.newest(written[:-1]) is None
    assert snapshot.newest(written) == third
