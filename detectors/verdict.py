"""A window's result as the event others read: the data of `io.servelens.verdict.v1`, its id and one plain sentence.

Apart from `monitor`, whose result it only words. Called by the evaluator for every recorded cut; the same cut gives
the same id and the same mapping.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from typing import Any, Final

from detectors.monitor import (
    AUTOCORRELATED,
    DRIFT,
    INSUFFICIENT,
    OK,
    RECOVERING,
    STATES,
    SUSPECT,
    ColumnResult,
    WindowResult,
)
from detectors.profile import Profile
from detectors.statistics import Settings
from servelens.contract.identity import ModelIdentity, digest

WORST_FIRST: Final = (DRIFT, SUSPECT, RECOVERING, OK, AUTOCORRELATED)
BLIND: Final = 0.5  # a column whose smallest visible effect is as large as this is not being watched
WINDOW, COMPARISON = "window", "comparison"
_BETWEEN: Final = {"suspect": "Drift if the next window agrees", "recovering": "Drifted until lately"}
_EFFECTS: Final = {
    "ks": "KS distance",
    "ks_two_sample": "KS distance",
    "chi_square": "total variation",
    "chi_square_two_sample": "total variation",
    "null_rate": "more nulls by",
    "unseen_rate": "more unseen values by",
    "range_rate": "more out of range by",
    "type_rate": "of a wrong type:",
    "schema_rate": "of another schema:",
}


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the evaluator knows of a window beyond its counts.

    `first`, `last`: its event-time slots, both in, of `slot_seconds` each. `late_rows`: rows that came after their
    window had closed, found since the last cut. `coverage`: rows over offered, None where nobody counted the offered.
    `gaps`: what the log no longer held. `timesource`: `broker` (LogAppendTime) or `producer`. `previous`,
    `following`: digests of the profiles that counted before or count after. `pointers`: input → partition → [first,
    end) of the offsets that hold it. `against`: the revision it was compared with. `heartbeat_slots`: after so many
    without a verdict published, one is.
    """

    group: str
    first: int
    last: int
    slot_seconds: int
    late_rows: int = 0
    coverage: float | None = None
    gaps: Sequence[Mapping[str, Any]] = ()
    timesource: str = "broker"
    kind: str = WINDOW
    previous: str = ""
    following: str = ""
    pointers: Mapping[str, Mapping[str, tuple[int, int]]] = field(default_factory=dict)
    against: str = ""
    heartbeat_slots: int = 360


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
    kind = f"{about.kind}:{about.against}" if about.against else about.kind
    question = (about.group, about.slot_seconds, window.identity, kind, (about.first, about.last))
    columns = [_column(profile, column) for column in result.columns]
    return {
        "id": verdict_id(*question, profile.digest, settings.version),
        "kind": about.kind,
        "group": about.group,
        **window.identity.labels(),
        **({"against": about.against} if about.kind == COMPARISON else {}),
        "segment": str(profile.segment or ""),
        "slots": [about.first, about.last],
        "slotseconds": about.slot_seconds,
        "rows": window.rows,
        "exchanges": window.exchanges,
        "late": about.late_rows,
        "counters": dict(sorted(window.counters.items())),
        "coverage": "unknown" if about.coverage is None else about.coverage,
        "gaps": [dict(gap) for gap in about.gaps],
        "timesource": about.timesource,
        "pointers": {name: {p: list(ends) for p, ends in held.items()} for name, held in about.pointers.items()},
        "profile": profile.digest,
        **({"previousprofile": about.previous} if about.previous else {}),
        **({"followingprofile": about.following} if about.following else {}),
        "statistics": settings.version,
        "alpha": settings.alpha,
        "scales": list(result.tested),
        "state": _worst(columns) if result.tested else STATES[INSUFFICIENT],
        "transitions": [_transition(column) for column in result.transitions],
        "columns": columns,
    }


def _worst(columns: Sequence[Mapping[str, Any]]) -> str:
    seen = {column["state"] for column in columns}
    return next((STATES[state] for state in WORST_FIRST if STATES[state] in seen), STATES[OK])


def _transition(column: ColumnResult) -> dict[str, str]:
    return {"column": column.column, "from": STATES[column.previous], "to": STATES[column.state]}


def _column(profile: Profile, column: ColumnResult) -> dict[str, Any]:
    """One column, or the requests; what was not tested has its state and no numbers."""
    at = profile.position.get(column.column)
    known: dict[str, Any] = {"column": column.column, "kind": "requests", "family": "quality"}
    state = column.state
    if at is not None:
        reference = profile.columns[at]
        known |= {"kind": reference.kind, "family": reference.family, "deff": reference.deff}
        state = AUTOCORRELATED if state == OK and reference.blind else state
    known["state"] = STATES[state]
    if column.test is None:
        return known
    test = asdict(column.test)
    return {**known, **test, "scale": column.scale, "shares": list(test["shares"])}


def summary(verdict: Mapping[str, Any]) -> str:
    """The verdict in one sentence, for a log line, an alert and the page."""
    columns, many = verdict["columns"], sum(one["kind"] != "requests" for one in verdict["columns"])
    if not verdict["scales"]:
        return f"Too few rows to judge: {verdict['rows']} in this window."
    among = f", against revision {verdict['against']}" if verdict["kind"] == COMPARISON else ""
    drifted = sorted((one for one in columns if one["state"] == "drift"), key=lambda one: -one.get("effect", 0.0))
    if drifted:
        more = f" and {len(drifted) - 3} more" if len(drifted) > 3 else ""
        named = ", ".join(map(_words, drifted[:3]))
        return f"Drift in {len(drifted)} of {many} columns{among}: {named}{more}."
    quiet = f"No drift in {many} columns over {verdict['rows']} rows{among}"
    return quiet + _sight(columns) + _waiting(columns) + _unwatched(columns)


def _unwatched(columns: Sequence[Mapping[str, Any]]) -> str:
    blind = [one["column"] for one in columns if one["state"] == "autocorrelated"]
    more = f" and {len(blind) - 3} more" if len(blind) > 3 else ""
    return f" Reference too autocorrelated: {', '.join(blind[:3])}{more}." if blind else ""


def _waiting(columns: Sequence[Mapping[str, Any]]) -> str:
    """The columns between quiet and drift."""
    named = {state: [one["column"] for one in columns if one["state"] == state] for state in _BETWEEN}
    return "".join(f" {what}: {', '.join(named[state][:3])}." for state, what in _BETWEEN.items() if named[state])


def _words(column: Mapping[str, Any]) -> str:
    if "effect" not in column:
        return str(column["column"])
    if not column["fired"]:
        return f"{column['column']} (not in the newest window)"
    over = f"over the last {column['scale']} windows" if column["scale"] > 1 else "in this window"
    return f"{column['column']} ({_EFFECTS[column['statistic']]} {column['effect']:.3f} {over}, p {column['p']:.1g})"


def _sight(columns: Sequence[Mapping[str, Any]]) -> str:
    """What could have been seen: the promise behind "no drift"."""
    judged = [one for one in columns if one["kind"] != "requests" and one["state"] != "autocorrelated"]
    least = [one["min_detectable"] for one in judged if "min_detectable" in one]
    seen = [effect for effect in least if effect < BLIND]
    blind = f" {len(least) - len(seen)} columns cannot be judged at this size." if len(seen) < len(least) else ""
    return (f"; any difference above {max(seen):.2f} would have shown." if seen else ".") + blind
