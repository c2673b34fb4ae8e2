"""A window's result as the event others read: the data of `io.servelens.verdict.v1`, its id and one plain sentence.

Apart from `monitor`, whose result it only words. Called by the evaluator for every recorded cut; the same cut gives
the same id and the same mapping.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any, Final

from detectors.columns import ColumnReference
from detectors.monitor import DRIFT, OK, RECOVERING, STATES, SUSPECT, ColumnResult, WindowResult
from detectors.profile import Profile
from detectors.statistics import Settings
from servelens.contract.identity import ModelIdentity, digest

WORST_FIRST: Final = (DRIFT, SUSPECT, RECOVERING, OK)
BLIND: Final = 0.5  # a column whose smallest visible effect is as large as this is not being watched
_BETWEEN: Final = {"suspect": "Drift if the next window agrees", "recovering": "Drifted until lately"}
_EFFECTS: Final = {
    "ks": "KS distance",
    "chi_square": "total variation",
    "null_rate": "more nulls by",
    "unseen_rate": "more unseen values by",
}


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the evaluator knows of a window beyond its counts.

    `first`, `last`: its event-time slots, both in, of `slot_seconds` each. `late_rows`: rows that came after their
    window had closed, found since the last cut. `coverage`: rows over offered, None where nobody counted the offered.
    `gaps`: what the log no longer held. `timesource`: `broker` (LogAppendTime) or `producer`.
    """

    group: str
    first: int
    last: int
    slot_seconds: int
    late_rows: int = 0
    coverage: float | None = None
    gaps: Sequence[Mapping[str, Any]] = ()
    timesource: str = "broker"
    kind: str = "window"


def verdict_id(
    group: str,
    slot_seconds: int,
    identity: ModelIdentity,
    kind: str,
    slot_range: tuple[int, int],
    profile_digest: str,
    statistics_version: str,
) -> str:
    """SHA-256, hex; equal for equal questions, so that a repeated verdict is recognised. `slot_range`: both in."""
    return digest(group, slot_seconds, *astuple(identity), kind, *slot_range, profile_digest, statistics_version)


def verdict(result: WindowResult, about: Circumstances, profile: Profile, settings: Settings) -> dict[str, Any]:
    """The event's data, JSON: pure text, numbers, lists and objects, without NaN or infinities."""
    window = result.window
    worst = min((column.state for column in result.columns), key=WORST_FIRST.index, default=OK)
    slots = (about.first, about.last)
    return {
        "id": verdict_id(
            about.group, about.slot_seconds, window.identity, about.kind, slots, profile.digest, settings.version
        ),
        "kind": about.kind,
        "group": about.group,
        **window.identity.labels(),
        "slots": list(slots),
        "slotseconds": about.slot_seconds,
        "rows": window.rows,
        "exchanges": window.exchanges,
        "late": about.late_rows,
        "counters": dict(sorted(window.counters.items())),
        "coverage": "unknown" if about.coverage is None else about.coverage,
        "gaps": [dict(gap) for gap in about.gaps],
        "timesource": about.timesource,
        "profile": profile.digest,
        "statistics": settings.version,
        "scales": list(result.tested),
        "state": STATES[worst],
        "transitions": [_transition(column) for column in result.transitions],
        "columns": [
            _column(reference, column) for reference, column in zip(profile.columns, result.columns, strict=True)
        ],
    }


def _transition(column: ColumnResult) -> dict[str, str]:
    return {"column": column.column, "from": STATES[column.previous], "to": STATES[column.state]}


def _column(reference: ColumnReference, column: ColumnResult) -> dict[str, Any]:
    """One column; what was not tested has its state and no numbers."""
    known = {
        "column": column.column,
        "kind": reference.kind,
        "family": reference.family,
        "state": STATES[column.state],
        "deff": reference.deff,
    }
    if column.test is None:
        return known
    test = asdict(column.test)
    return {**known, **test, "scale": column.scale, "shares": list(test["shares"])}


def summary(verdict: Mapping[str, Any]) -> str:
    """The verdict in one sentence, for a log line, an alert and the page."""
    columns = verdict["columns"]
    if not verdict["scales"]:
        return f"Too few rows to judge: {verdict['rows']} in this window."
    drifted = sorted((one for one in columns if one["state"] == "drift"), key=lambda one: -one.get("effect", 0.0))
    if drifted:
        more = f" and {len(drifted) - 3} more" if len(drifted) > 3 else ""
        return f"Drift in {len(drifted)} of {len(columns)} columns: {', '.join(map(_words, drifted[:3]))}{more}."
    return f"No drift in {len(columns)} columns over {verdict['rows']} rows{_sight(columns)}{_waiting(columns)}"


def _waiting(columns: Sequence[Mapping[str, Any]]) -> str:
    """The columns between quiet and drift."""
    named = {state: [one["column"] for one in columns if one["state"] == state] for state in _BETWEEN}
    return "".join(f" {what}: {', '.join(named[state][:3])}." for state, what in _BETWEEN.items() if named[state])


def _words(column: Mapping[str, Any]) -> str:
    if "effect" not in column:
        return str(column["column"])
    over = f"over the last {column['scale']} windows" if column["scale"] > 1 else "in this window"
    return f"{column['column']} ({_EFFECTS[column['statistic']]} {column['effect']:.3f} {over}, p {column['p']:.1g})"


def _sight(columns: Sequence[Mapping[str, Any]]) -> str:
    """What could have been seen: the promise behind "no drift"."""
    least = [one["min_detectable"] for one in columns if "min_detectable" in one]
    seen = [effect for effect in least if effect < BLIND]
    blind = f" {len(least) - len(seen)} columns cannot be judged at this size." if len(seen) < len(least) else ""
    return (f"; any difference above {max(seen):.2f} would have shown." if seen else ".") + blind
