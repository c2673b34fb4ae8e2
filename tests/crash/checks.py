"""What must hold afterwards: the ledger against the panes logs, and the verdicts against a second evaluation.

Everything is read from Kafka with the product's own folds, in another order of the logs than any evaluator read them;
what was sent, and where it lies, is the producer's ledger alone.
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from crash.ledger import ROWS, Key, Producer
from crash.stack import PARTITIONS, PREFIX, SLOTS, Stack

from detectors import fence, journal
from detectors.book import read_book
from detectors.evaluation import Evaluation, Group
from detectors.fence import Commit, Fold
from detectors.settings import DetectorSettings
from detectors.statistics import Settings, alpha_for
from servelens.io.kafka import read_all


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    held: bool
    words: str


@dataclass(slots=True)
class Counted:
    """One group's panes logs: rows by model and slot, the offsets of gaps, and how the fence had to work."""

    rows: Counter[Key]
    gaps: set[tuple[int, int]]
    next: dict[int, int]
    verdicts: Counter[str]


def counted(stack: Stack, group: str) -> Counted:
    found = Counted(Counter(), set(), {}, Counter())
    for partition in range(PARTITIONS):
        fold = Fold()
        for record in read_all(stack.settings, stack.topics.panes(group), partition):
            outcome = fold.apply(record.offset, fence.decode(record.value))
            found.verdicts[outcome.verdict] += 1
            if outcome.verdict != "accepted" or not isinstance(outcome.entry, Commit):
                continue
            for _, pane in outcome.panes:
                found.rows[pane["identity"]["inferenceservice"], pane["slots"][0]] += pane["rows"]
            for start, end in outcome.entry.gaps:
                found.gaps |= {(partition, offset) for offset in range(start, end)}
        found.next[partition] = fold.next.get("payloads", 0)
    return found


def _evaluation(stack: Stack, group: str) -> Evaluation:
    settings = DetectorSettings(
        stack.settings, PREFIX, group, stack.folder / "profiles", "", slot=SLOTS[group], lateness=4, shortest_window=4,
        statistics=Settings(alpha=alpha_for(1.0, 4)), heartbeat=0,
    )  # fmt: skip
    about = Group(group, settings.slot, settings.statistics, settings.closing, settings.heartbeat)
    return Evaluation(read_book(settings.profiles, settings.slot), about, PARTITIONS)


def judged(stack: Stack, group: str, seed: int) -> tuple[list[dict[str, Any]], Evaluation]:
    """The verdicts of the recorded cuts, from logs read in an order of this seed; and the state behind them."""
    evaluation, chance, found = _evaluation(stack, group), random.Random(seed), []
    logs = {p: read_all(stack.settings, stack.topics.panes(group), p) for p in range(PARTITIONS)}
    cuts = read_all(stack.settings, stack.topics.lease(group), 0)
    at = dict.fromkeys([*logs, -1], 0)
    while True:
        left = [p for p in logs if at[p] < len(logs[p])] + ([-1] if at[-1] < len(cuts) else [])
        if not left:
            return found, evaluation
        log = chance.choice(left)
        for record in (cuts if log < 0 else logs[log])[at[log] : at[log] + chance.randint(1, 50)]:
            at[log] += 1
            if log < 0:
                evaluation.journal_entry(record.offset, journal.decode(record.value))
            else:
                evaluation.pane_entry(log, record.offset, fence.decode(record.value))
        found += [dict(one.verdict) for one in evaluation.settle()]


def checks(stack: Stack, producer: Producer) -> Iterator[Check]:
    """Every check, both groups."""
    published = [orjson.loads(r.value) for r in read_all(stack.settings, stack.topics.verdicts, 0)]
    for group, seconds in SLOTS.items():
        seen = counted(stack, group)
        yield _all_read(stack, group, seen)
        yield _slots(producer, group, seconds, seen)
        said, evaluation = judged(stack, group, 1)
        yield _windows(producer, group, seen, said, evaluation)
        again = judged(stack, group, 2)[0]
        own = [one for one in published if one["group"] == group]
        yield _same(group, said, again, own)
        yield _letters(stack, producer, group, seen)


def _all_read(stack: Stack, group: str, seen: Counted) -> Check:
    ends = stack.ends(stack.topics.payloads)
    return Check(f"{group}: the accepted batches reach the ends", seen.next == ends, f"{seen.next} of {ends}")


def _slots(producer: Producer, group: str, seconds: int, seen: Counted) -> Check:
    """Per model and slot: rows counted + rows in recorded gaps = rows in the ledger."""
    expected: Counter[Key] = Counter()
    lost = 0
    for one in producer.sent:
        if all(place in seen.gaps for place in one.places):
            lost += ROWS
        else:
            expected[one.model, one.second // seconds] += ROWS
    wrong = {key: (seen.rows[key], expected[key]) for key in seen.rows | expected if seen.rows[key] != expected[key]}
    words = f"{seen.rows.total()} counted + {lost} in gaps = {ROWS * len(producer.sent)} sent, {len(expected)} slots"
    return Check(f"{group}: every slot's rows are the ledger's", not wrong, words + (f"; {wrong}" if wrong else ""))


def _windows(
    producer: Producer, group: str, seen: Counted, said: list[dict[str, Any]], evaluation: Evaluation
) -> Check:
    """Rows in windows + late + still open = rows counted."""
    windows = sum(one["rows"] for one in said if one["kind"] == "window")
    late = sum(one["late"] for one in said if one["kind"] == "window")
    waiting = [piece for held in evaluation.watched.values() for piece in (*held.windows.pieces, *held.windows.late)]
    rest = sum(piece.pane.rows for piece in waiting)
    words = f"{windows} in {len(said)} windows + {late} late + {rest} still open = {seen.rows.total()} counted"
    return Check(f"{group}: no row is in two windows or in none", windows + late + rest == seen.rows.total(), words)


def _same(group: str, said: list[dict[str, Any]], again: list[dict[str, Any]], own: list[dict[str, Any]]) -> Check:
    """Recorded cuts evaluated again, in another order of the logs, give what was published: ids and integers."""
    theirs: dict[str, dict[str, Any]] = {}
    repeats, contradicting = 0, 0
    for one in own:
        plain = {name: value for name, value in one.items() if name != "summary"}
        repeats += one["id"] in theirs
        contradicting += theirs.setdefault(one["id"], plain) != plain
    mine = {one["id"]: orjson.loads(orjson.dumps(one)) for one in said}
    held = said == again and len(mine) == len(said) and mine == theirs and not contradicting
    words = f"{len(mine)} verdicts, {len(theirs)} published ({repeats} twice, {contradicting} contradicting)"
    return Check(f"{group}: cuts evaluated again give the same verdicts", held, words)


def _letters(stack: Stack, producer: Producer, group: str, seen: Counted) -> Check:
    """A letter may be written twice by a killed worker; none may be missing, but for those retention took."""
    places = set()
    for partition in range(PARTITIONS):
        for record in read_all(stack.settings, stack.topics.dead_letters(group), partition):
            places.add(dict(record.headers)["servelens_offset"].decode())
    words = f"{len(places)} of {producer.letters} unreadable records, {len(seen.gaps)} offsets in gaps"
    held = len(places) <= producer.letters and producer.letters - len(places) <= len(seen.gaps)
    return Check(f"{group}: what cannot be read is laid aside", held, words)
