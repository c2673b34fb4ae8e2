"""Whether a round was as promised: each promise a check on numbers from independent places.

The clients' ledger says what was answered, Kafka says what arrived, `/spool` says what is counted; none of them knows
the others.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fault_clients import Asked, Ledger
from fault_kinds import Injected

SERVED_WITHIN: Final = 1.0  # seconds: a new connection after a tap's death
AT_ONCE: Final = 0.02  # seconds: how exactly a moment is known
LEFT_OUT: Final = ("predictor killed", "predictor stopped", "parent killed", "container killed", "parent stopped")


@dataclass(frozen=True, slots=True)
class Check:
    """One promise: whether it held, and the numbers."""

    name: str
    held: bool
    words: str


@dataclass(slots=True)
class Round:
    """All that is known of a round at its end. `before` and `after` are what `/spool` said, both settled."""

    number: int
    config: str
    ledger: Ledger
    injected: list[Injected]
    before: Mapping[str, Any]
    after: Mapping[str, Any] = field(default_factory=dict)
    loses: frozenset[str] = frozenset()  # reasons that may have grown
    arrived: int = 0  # exchanges new in Kafka
    missing: list[int] = field(default_factory=list)  # numbers answered and not in Kafka
    problems: list[str] = field(default_factory=list)  # of the reader
    settled: float | None = None  # seconds until nothing waited; None: not in time
    seconds: float = 0.0

    def more(self, name: str) -> int:
        """How much a total of the account grew."""
        return int(self.after.get(name, 0)) - int(self.before.get(name, 0))

    @property
    def lost(self) -> Counter[str]:
        """How much each reason grew, by less than nothing too."""
        old, new = self.before.get("reasons", {}), self.after.get("reasons", {})
        return Counter({name: new.get(name, 0) - old.get(name, 0) for name in new if new[name] != old.get(name, 0)})

    @property
    def names(self) -> list[str]:
        """The kinds of its faults."""
        return [one.kind.name for one in self.injected]

    def of(self, name: str) -> Injected | None:
        """The fault of a kind, if it was in it."""
        return next((one for one in self.injected if one.kind.name == name), None)


def checks(one: Round) -> Iterator[Check]:
    """Every check."""
    yield from (_injected(one), _settled(one), _offered(one), _whole(one), _kept(one), _reasons(one), _in_kafka(one))
    yield from (_crash(one), _served(one), _answered(one), _alive(one))


def _injected(one: Round) -> Check:
    troubles = [f"{found.kind.name}: {found.trouble}" for found in one.injected if found.trouble]
    return Check("the faults could be done and undone", not troubles, "; ".join(troubles))


def _settled(one: Round) -> Check:
    account = one.after
    held = one.settled is not None and bool(account) and account["waiting"] == 0
    held = held and account["offered"] == account["shipped"] + sum(account["reasons"].values())
    words = {name: account.get(name) for name in ("offered", "shipped", "waiting", "adds_up")}
    return Check("nothing waits and the account adds up", held, f"{words} after {one.settled} s")


def _offered(one: Round) -> Check:
    """A request without an answer is one whose head may not have come to the tap; every other one is offered."""
    answered, sent, offered = len(one.ledger.answered), len(one.ledger.asked), one.more("offered")
    return Check("answered ≤ offered ≤ sent", answered <= offered <= sent, f"{answered} ≤ {offered} ≤ {sent}")


def _whole(one: Round) -> Check:
    """Of a segment given up some may have been delivered, and not yet be known as such."""
    shipped, given_up = one.more("shipped"), one.lost["spool_lost"] + one.lost["spool_full"]
    may = given_up if "segment damaged" in one.names or "spool_full" in one.loses else 0
    held = shipped <= one.arrived <= shipped + may
    return Check("shipped = in Kafka", held, f"{shipped} shipped, {one.arrived} arrived, {given_up} given up")


def _kept(one: Round) -> Check:
    lost = sum(one.lost.values())
    words = f"{len(one.missing)} answered and not in Kafka, {lost} counted as lost; first {one.missing[:5]}"
    return Check("answered = in Kafka ∪ counted", len(one.missing) <= lost, words)


def _reasons(one: Round) -> Check:
    strange = {name: count for name, count in one.lost.items() if count < 0 or name not in one.loses}
    return Check("nothing lost but by what may lose", not strange, str(strange or ""))


def _in_kafka(one: Round) -> Check:
    problems = one.problems + [f"request {number} was answered with something else" for number in one.ledger.wrong]
    return Check("Kafka's records are in order and true", not problems, f"{len(problems)}: {'; '.join(problems[:5])}")


def _crash(one: Round) -> Check:
    """At most what clients had under way, or only just had answered, and frames not yet in the spool."""
    kills = [found for found in one.injected if "crash" in found.kind.loses]
    bound = sum(found.facts.get("in_flight", 0) + max(0, found.facts.get("uncommitted", 0)) for found in kills)
    words = f"{one.lost['crash']} ≤ {bound:.0f} of {[found.facts for found in kills]}"
    return Check("a tap's death costs at most what was in flight", one.lost["crash"] <= bound, words)


def _served(one: Round) -> Check:
    """Whoever connects after a tap's death; not judged where predictor or parent are away as well."""
    kill = one.of("tap killed")
    if kill is None or any(name in LEFT_OUT for name in one.names):
        return Check("served after a tap's death", True, "")
    allowed = SERVED_WITHIN + kill.facts.get("back_off", 0.0)
    first: dict[float, Asked] = {}  # request of each connection
    for found in one.ledger.asked:
        first.setdefault(found.opened, found)
    waits = [found.ended - opened for opened, found in first.items() if kill.began < opened]
    words = f"{max(waits, default=0.0):.2f} s, {allowed:.1f} allowed, {len(waits)} connections"
    return Check("served after a tap's death", bool(waits) and max(waits) <= allowed, words)


def _answered(one: Round) -> Check:
    """Without an answer is only who was talking to a tap, a predictor or a container as it died."""
    faults = [found for found in one.injected if found.kind.fails]
    bad = [asked for asked in one.ledger.failed if not any(_excused(asked, found) for found in faults)]
    refused = [at for at in one.ledger.refused if not any(_away(at, found) for found in faults)]
    words = f"{len(one.ledger.failed)} failed, without cause {len(bad)}: {bad[:3]}; refused {len(refused)}"
    return Check("nobody else saw an error", not bad and not refused, words)


def _excused(asked: Asked, fault: Injected) -> bool:
    if fault.kind.victim == "tap":
        return asked.opened <= fault.began + AT_ONCE and asked.ended >= fault.began - AT_ONCE
    return asked.began <= fault.lifted + AT_ONCE and asked.ended >= fault.began - AT_ONCE


def _away(at: float, fault: Injected) -> bool:
    return fault.kind.victim == "parent" and fault.began - AT_ONCE <= at <= fault.lifted + AT_ONCE


def _alive(one: Round) -> Check:
    """Of the logger's processes only those restarted that a fault had killed."""
    if any(found.kind.victim == "parent" and found.kind.fails for found in one.injected):
        return Check("nothing else died", True, "")
    old, new = one.before.get("restarts", {}), one.after.get("restarts", {})
    more = Counter({name: new[name] - old.get(name, 0) for name in new if new[name] != old.get(name, 0)})
    allowed = Counter[str]()
    for found in one.injected:
        allowed.update(found.kind.restarts)
    return Check("nothing else died", more == allowed, f"{dict(more)} restarted, {dict(allowed)} killed")
