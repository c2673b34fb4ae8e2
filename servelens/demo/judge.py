"""Whether a run of the demo showed what it had to: each promise as a check on numbers from independent places."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from servelens.demo.explained import Explained
from servelens.demo.traffic import Failure, Ledger
from servelens.demo.verdicts import Shipped
from servelens.demo.view import Check

MUST_MOVE: Final = "dep_delay"  # flights leave later in June than in January, and this says so at once
AT_ONCE: Final = 0.05  # seconds: how exactly the moment of a kill is known


@dataclass(frozen=True, slots=True)
class Kill:
    """A SIGKILL sent during the run, Unix seconds; `back` when the process listened again (predictor only)."""

    name: str
    at: float
    back: float | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """Everything known at the end. `shift_slot` is the first slot that holds summer; `moved` what really changed."""

    ledger: Ledger
    account: Mapping[str, Any]
    shipped: Shipped
    rows_per_exchange: int
    rows_counted: int
    verdicts: Sequence[Mapping[str, Any]]
    shift_slot: int
    moved: Mapping[str, float]
    kills: Sequence[Kill]
    explained: Explained
    page: str


def checks(run: Run) -> Iterator[Check]:
    """Every check, in the order of the flow."""
    yield from (_answered(run), _sum(run), _known(run), _in_kafka(run), _counted(run), _quiet(run), _alarm(run))
    yield from (_shown(run), _told(run), _unlogged(run))


def _shown(run: Run) -> Check:
    said = run.verdicts[-1]["state"] if run.verdicts else "nothing"
    held = bool(run.verdicts) and f'class="state {said}"' in run.page
    return Check("the page says what the last verdict says", held, f"{said}, on {len(run.page)} bytes of HTML")


def _allowed(failure: Failure, kill: Kill) -> bool:
    if kill.name == "tap":  # only requests open at that moment
        return failure.began <= kill.at + AT_ONCE and failure.ended >= kill.at - AT_ONCE
    if kill.name == "predictor":
        unanswered = failure.what in ("502", "503") or not failure.what.isdigit()  # open on its death: passed on so
        open_then = (
            failure.began <= kill.at and failure.ended >= kill.at - AT_ONCE
        )  # however long it had waited by then
        return unanswered and (open_then or kill.at - 1 <= failure.began <= (kill.back or kill.at) + 1)
    return False


def _answered(run: Run) -> Check:
    unexplained = [f for f in run.ledger.failures if not any(_allowed(f, kill) for kill in run.kills)]
    kills = [kill.name for kill in run.kills if kill.name in ("tap", "predictor")]
    name = f"requests fail only where {' or '.join(kills)} died" if kills else "every request is answered"
    words = f"{run.ledger.statuses[200]} of {run.ledger.sent} answered with 200, {len(run.ledger.failures)} failed"
    if unexplained:
        words += f"; {len(unexplained)} of these without cause, first: {unexplained[0]}"
    return Check(name, not unexplained, words)


def _sum(run: Run) -> Check:
    account = run.account
    lost = sum(account["reasons"].values())
    words = f"{account['offered']} = {account['shipped']} + {account['waiting']} + {lost}"
    named = ", ".join(f"{count} {reason}" for reason, count in account["reasons"].items() if count)
    held = account["offered"] == account["shipped"] + account["waiting"] + lost and account["waiting"] == 0
    return Check("offered = shipped + waiting + Σ reasons, waiting = 0", held, words + (f" ({named})" if named else ""))


def _known(run: Run) -> Check:
    """Offered against the clients' own count: a request the tap never saw can only be one open on its death."""
    offered = run.account["offered"] - run.account["reasons"]["synthetic"]
    unseen = run.ledger.sent - offered
    broken = sum(1 for failure in run.ledger.failures if not failure.what.isdigit())
    words = f"{run.ledger.sent} sent, {offered} offered"
    return Check("the tap saw every request", 0 <= unseen <= broken, words)


def _in_kafka(run: Run) -> Check:
    by_status = run.shipped.by_status
    bad = sum(count for status, count in by_status.items() if status in (502, 503))
    asked = sum(run.ledger.statuses[status] for status in (502, 503))
    words = f"{run.shipped.exchanges} exchanges ({run.shipped.repeated} repeated), {bad} of them answered 502"
    held = run.shipped.exchanges == run.account["shipped"] and bad == asked
    return Check("Kafka holds every exchange that counts as shipped", held, words)


def _counted(run: Run) -> Check:
    expected = run.shipped.by_status.get(200, 0) * run.rows_per_exchange
    words = f"{run.rows_counted} rows in panes, {expected} in Kafka"
    return Check("the detector counted every row once", run.rows_counted == expected, words)


def _quiet(run: Run) -> Check:
    before = [verdict for verdict in run.verdicts if verdict["slots"][1] < run.shift_slot]
    alarms = [c["column"] for v in before for c in v["columns"] if c["state"] == "drift"]
    words = f"{len(before)} windows, {len(alarms)} alarms" + (f": {', '.join(sorted(set(alarms)))}" if alarms else "")
    return Check("no alarm before the shift", not alarms and len(before) >= 3, words)


def _alarm(run: Run) -> Check:
    after = [verdict for verdict in run.verdicts if verdict["slots"][1] >= run.shift_slot]
    first: dict[str, int] = {}
    for number, verdict in enumerate(after, 1):
        for column in verdict["columns"]:
            if column["state"] == "drift":
                first.setdefault(column["column"], number)
    wrong = set(first) - set(run.moved)
    found = ", ".join(f"{column} in window {number}" for column, number in first.items()) or "nothing"
    words = f"{len(after)} windows: {found}"
    if wrong:
        words += f"; {', '.join(sorted(wrong))} did not move"
    return Check("an alarm after it, with the right columns", MUST_MOVE in first and not wrong, words)


def _told(run: Run) -> Check:
    """Explanations against Shapley's formula, and V1 against V2."""
    told = run.explained
    apart = max(
        abs(left[name] - right[name])
        for left, right in zip(told.attributions, told.tensors, strict=True)
        for name in left
    )
    words = f"{len(told.truth)} flights: {told.within:.0%} of attributions; V1 and V2 differ by {apart:.1g}; "
    words += f"slowest {told.seconds:.2f} s"
    return Check("explanations are within two stated errors of the truth", told.within >= 0.9 and apart < 1e-6, words)


def _unlogged(run: Run) -> Check:
    asked = run.account["reasons"]["synthetic"]
    words = f"{run.explained.calls} calls by the explainer, {asked} known to the tap as such"
    return Check("what the explainer asks is no traffic", 0 < asked == run.explained.calls, words)
