"""What the page and the API show, as plain values out of the evaluation: models, a timeline, one window. No I/O.

The evaluation changes in another thread; whoever calls holds the evaluator's lock. Shares in histograms come from the
counts alone, so a window can be looked at without any row of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from detectors.bins import Counts, QuantileBins
from detectors.columns import ColumnReference
from detectors.evaluation import Evaluation
from detectors.monitor import STATES
from detectors.pane import Pane
from detectors.statistics import examine, names
from detectors.verdict import summary
from detectors.watched import Model, Seen, Watched
from servelens.contract.errors import NotFound
from servelens.contract.identity import ModelIdentity, digest
from servelens.contract.times import US, rfc3339

BARS: Final = 16  # of a histogram; a numeric column's are of equal reference share
LEVELS: Final = 15  # of a categorical column's histogram, the rest together


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of a column, its share of the reference and of the window."""

    part: str
    then: float
    now: float


def key_of(watched: Watched, identity: ModelIdentity) -> str:
    """What a model is called in an address: equal for equal profiles and revisions."""
    return digest(watched.profile.digest, str(identity))[:16]


def models(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Every revision that is watched, the ones in drift first."""
    found = [
        {
            "key": key_of(watched, identity),
            **identity.labels(),
            "segment": str(watched.profile.segment or ""),
            "profile": watched.profile.digest,
            "state": model.latest["state"],
            "summary": summary(model.latest),
            "windows": model.monitor.windows,
            "until": _time(evaluation, model.seen[-1].last + 1),
            "rows": model.seen[-1].rows,
            "coverage": model.seen[-1].coverage,
        }
        for watched, identity, model in _all(evaluation)
    ]
    worst = {state: at for at, state in enumerate(("drift", "suspect", "recovering", "insufficient"))}
    return sorted(found, key=lambda one: (worst.get(str(one["state"]), len(worst)), str(one["inferenceservice"])))


def overview(evaluation: Evaluation) -> dict[str, Any]:
    """All of them, with the group they are watched by and the rows a window closes at."""
    group = evaluation.group
    return {"group": group.name, "target": group.closing.n_target, "models": models(evaluation)}


def model(evaluation: Evaluation, key: str) -> dict[str, Any]:
    """One revision: its newest verdict, its timeline, its comparisons; NotFound for a key that is none."""
    watched, identity, found = _find(evaluation, key)
    shown = len(found.monitor.ring)
    return {
        "key": key,
        **identity.labels(),
        "segment": str(watched.profile.segment or ""),
        "profile": {
            "digest": watched.profile.digest,
            "rows": watched.profile.rows,
            "season": watched.profile.season,
            "warnings": list(watched.profile.warnings),
        },
        "columns": list(names(watched.profile)),
        "latest": {**found.latest, "summary": summary(found.latest)},
        "timeline": [_seen(evaluation, one, at >= len(found.seen) - shown) for at, one in enumerate(found.seen)],
        "comparisons": [
            {**pair.latest, "summary": summary(pair.latest)}
            for who, pair in watched.pairs.items()
            if identity in who and pair.latest
        ],
    }


def window(evaluation: Evaluation, key: str, last: int) -> dict[str, Any]:
    """One of the newest windows: its tests alone, and each column's histogram beside the reference's."""
    watched, identity, seen, pane = subject(evaluation, key, last)
    tests = examine(watched.profile, pane, evaluation.group.statistics)
    references = watched.profile.against(pane.seasons)
    bars: list[list[Bar]] = [histogram(*one) for one in zip(references, pane.split(), strict=True)]
    columns = [
        {**asdict(test), "state": STATES[int(state)], "bars": [asdict(bar) for bar in drawn]}
        for test, state, drawn in zip(tests, seen.states, [*bars, []], strict=True)
    ]
    about = {**_seen(evaluation, seen, shown=True), "counters": dict(pane.counters), "exchanges": pane.exchanges}
    return {"key": key, **identity.labels(), "segment": str(watched.profile.segment or ""), **about, "columns": columns}


def histogram(reference: ColumnReference, counts: Counts) -> list[Bar]:
    """The column's parts in order: ranges of equal reference share, or the most frequent levels; then the nulls."""
    then, now = max(reference.rows, 1), max(int(counts.sum()), 1)
    return [
        Bar(name, int(reference.counts[list(at)].sum()) / then, int(counts[list(at)].sum()) / now)
        for name, at in (_ranges(reference) if isinstance(reference.bins, QuantileBins) else _levels(reference, counts))
    ]


def _ranges(reference: ColumnReference) -> Iterator[tuple[str, Sequence[int]]]:
    bins = reference.bins
    if not isinstance(bins, QuantileBins):
        return
    last, wanted, first, held = bins.size - 2, (reference.rows - reference.nulls) / BARS, 0, 0
    if bins.limited:
        yield f"below {bins.edges[0]:.4g}", [0]
        first, last = 1, last - 1
    for number in range(first, last + 1):
        held += int(reference.counts[number])
        if held >= wanted or number == last:
            yield bins.span(first, number), range(first, number + 1)
            first, held = number + 1, 0
    if bins.limited:
        yield f"above {bins.edges[-1]:.4g}", [bins.size - 2]
    yield "null", [bins.size - 1]


def _levels(reference: ColumnReference, counts: Counts) -> Iterator[tuple[str, Sequence[int]]]:
    bins = reference.bins
    order = sorted(range(bins.size - 2), key=lambda at: (-int(reference.counts[at]) - int(counts[at]), at))
    kept = sorted(order[:LEVELS])
    for at in kept:
        yield bins.label(at), [at]
    if len(order) > LEVELS:
        yield f"{len(order) - LEVELS} more", order[LEVELS:]
    yield "unseen", [bins.size - 2]
    yield "null", [bins.size - 1]


def subject(evaluation: Evaluation, key: str, last: int) -> tuple[Watched, ModelIdentity, Seen, Pane]:
    """A window's profile, revision, place in the timeline and counts; NotFound where one of them is not kept."""
    watched, identity, found = _find(evaluation, key)
    kept = zip(list(found.seen)[-len(found.monitor.ring) :], found.monitor.ring, strict=True)
    for seen, pane in kept:
        if seen.last == last:
            return watched, identity, seen, pane
    raise NotFound(f"window: {last} is not among those whose counts are kept")


def _all(evaluation: Evaluation) -> Iterator[tuple[Watched, ModelIdentity, Model]]:
    for watched in evaluation.watched.values():
        for identity, found in watched.models.items():
            if found.seen:
                yield watched, identity, found


def _find(evaluation: Evaluation, key: str) -> tuple[Watched, ModelIdentity, Model]:
    for watched, identity, found in _all(evaluation):
        if key_of(watched, identity) == key:
            return watched, identity, found
    raise NotFound(f"model: {key[:40]!r} is none that is watched here")


def _seen(evaluation: Evaluation, one: Seen, shown: bool) -> Mapping[str, Any]:
    """`shown`: whether its counts are still kept."""
    return {
        "id": one.id,
        "first": one.first,
        "last": one.last,
        "from": _time(evaluation, one.first),
        "to": _time(evaluation, one.last + 1),
        "rows": one.rows,
        "late": one.late,
        "coverage": one.coverage,
        "state": one.state,
        "states": [STATES[int(digit)] for digit in one.states],
        "shown": shown,
    }


def _time(evaluation: Evaluation, slot: int) -> str:
    return rfc3339(slot * evaluation.group.slot_seconds * US)[:19] + "Z"
