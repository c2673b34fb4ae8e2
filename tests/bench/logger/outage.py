"""Row 3: a steady load, Kafka away for minutes, Kafka back; latency, memory and the account through all of it.

One run of the client without a break, so that its latencies are of the same connections before, during and after.
"""

import time
from dataclasses import asdict, dataclass, field
from typing import Any

import gauge
from contestants import Contestant
from load import Ask, Outcome
from rig import Rig
from sustained import drained

SPOOL = "8GiB"  # ten minutes of it do not fit into the default of 512 MiB
EDGE = 2  # seconds left out on either side of a change


@dataclass(frozen=True)
class OutagePlan:
    """Seconds with Kafka up, away and back; exchanges a second. `away` is `frozen` or `killed`."""

    up: float
    down: float
    back: float
    rate: float
    away: str = "frozen"
    body: str = "4 KiB"
    connections: int = 16


@dataclass
class Outage:
    """What it came to. Latencies in ms by phase, memory in MiB, spool in bytes."""

    plan: OutagePlan
    broker: str
    p50: dict[str, float]
    p99: dict[str, float]
    rate: float
    errors: int
    samples: list[dict[str, Any]]  # seconds, waiting, spool_bytes, memory by process
    cpu: dict[str, dict[str, float]]  # CPU seconds of each process by phase
    drain_seconds: float
    account: dict[str, Any]
    rows: tuple[int, int] | None  # records in the topic, distinct exchanges among them
    arrived: bool = field(default=False)

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    def most(self, what: str, phase: str) -> int:
        """The largest sample of a phase."""
        return max((one[what] for one in self.samples if one["phase"] == phase), default=0)

    def peak(self, phase: str) -> tuple[float, float]:
        """The largest PSS and RSS of all processes together in a phase."""
        seen = [gauge.together(one["memory"]) for one in self.samples if one["phase"] == phase]
        return max(seen, default=(float("nan"), float("nan")))


def run(rig: Rig, plan: OutagePlan) -> Outage:
    """The whole of it."""
    away = plan.away if rig.kafka.keeps else "frozen"  # what is only in memory must not be killed
    work = rig.progress.add_task("outage", total=plan.up + plan.down + plan.back)
    with rig.logging(rig.redacts, "--spool-bytes", SPOOL) as (logger, topic):
        time.sleep(1.0)
        rig.warm_up(logger, plan.body, plan.connections)
        drained(logger)
        spool, phase, cpu = rig.folder / topic.removeprefix("bench-").partition(".")[0], "up", dict[str, Any]()

        def look() -> dict[str, Any]:
            size = sum(path.stat().st_size for path in spool.glob("segment-*"))
            waiting = logger.account()["waiting"]
            return {"phase": phase, "waiting": waiting, "spool_bytes": size, "memory": gauge.memory(logger.processes)}

        ask = Ask(logger.port, plan.body, plan.connections, plan.up + plan.down + plan.back, plan.rate)
        with gauge.Watch(look, min(5.0, plan.down / 10)) as watch:
            rig.client.start(ask)
            for phase, seconds, change in (
                ("up", plan.up, None),
                ("down", plan.down, rig.kafka.freeze if away == "frozen" else rig.kafka.kill),
                ("back", plan.back, rig.kafka.thaw if away == "frozen" else rig.kafka.start),
            ):
                before = gauge.cpu(logger.processes)
                _phase(rig, work, phase, seconds, change)
                cpu[phase] = gauge.spent(logger.processes, before)
            outcome = rig.client.outcome()
        samples = [{"seconds": at, **one} for at, one in watch.samples]
        return _told(rig, plan, logger, topic, outcome, samples, cpu)


def _phase(rig: Rig, work: Any, phase: str, seconds: float, change: Any) -> None:
    ends = time.monotonic() + seconds
    rig.progress.update(work, description=f"outage: Kafka {phase} for {seconds:.0f} s")
    if change is not None:
        change()
    while (left := ends - time.monotonic()) > 0:
        time.sleep(min(1.0, left))
        rig.progress.advance(work, min(1.0, left))


def _told(
    rig: Rig,
    plan: OutagePlan,
    logger: Contestant,
    topic: str,
    outcome: Outcome,
    samples: list[dict[str, Any]],
    cpu: Any,
) -> Outage:
    rig.progress.add_task("outage: the backlog drains, then every record is looked at", total=None)
    drain = drained(logger, max(120.0, plan.down))
    account = logger.account()
    rows = rig.kafka.rows(topic)
    ends = {"up": (EDGE, int(plan.up) - EDGE)}
    ends["down"] = (int(plan.up) + EDGE, int(plan.up + plan.down) - EDGE)
    ends["back"] = (int(plan.up + plan.down) + EDGE, int(plan.up + plan.down + plan.back))
    return Outage(
        plan=plan, broker=rig.kafka.name,
        p50={phase: outcome.quantile(0.5, *span) * 1e3 for phase, span in ends.items()},
        p99={phase: outcome.quantile(0.99, *span) * 1e3 for phase, span in ends.items()},
        rate=outcome.rate, errors=outcome.errors, samples=samples, cpu=cpu, drain_seconds=drain, account=account,
        rows=(rows.records, rows.exchanges), arrived=rows.exchanges == account["shipped"],
    )  # fmt: skip
