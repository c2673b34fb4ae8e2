"""Row 2's other half: the highest paced rate at which the backlog does not grow, found by trials, then held.

The backlog is what the admin port calls waiting: exchanges offered and neither shipped nor counted as lost.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gauge
import numpy as np
from contestants import Contestant
from load import Ask
from rig import Rig, Slice

TICK = 1e-3  # a coarser client leaves more of the machine to the logger; no latency bar stands on this
LEAST_RATE = 0.95  # of the rate asked for; Poisson arrivals differ by about 1 % in a trial
HEADROOM = 0.95  # of the highest rate a trial held, for the long run
DRAIN_SECONDS = 120.0
LAG = 0.5  # seconds of traffic that may wait in the last third: commits and batches take their time


@dataclass(frozen=True)
class SustainedPlan:
    """Seconds, and the rates to look between."""

    trials: int
    trial_seconds: float
    seconds: float
    lowest: float = 500.0
    highest: float = 16_000.0
    body: str = "4 KiB"
    connections: int = 16
    attempts: int = 2  # at holding it


@dataclass
class Held:
    """A paced rate for a time, and whether the logger kept up."""

    slice: Slice
    growth: float  # exchanges a second by which the backlog grew
    lost: int
    kept_up: bool
    waiting: list[tuple[float, int]]
    memory: list[tuple[float, float, float]] = field(default_factory=list)  # seconds, PSS, RSS

    @property
    def cpu(self) -> float:
        """CPU µs of all logger processes an exchange."""
        return sum(self.slice.cpu.values())

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {**vars(self), "slice": self.slice.plain()}


def run(rig: Rig, plan: SustainedPlan) -> tuple[list[Held], Held]:
    """The trials, and the long run at the rate they found."""
    work = rig.progress.add_task("sustained", total=plan.trials + 1)
    low, high, trials = plan.lowest, plan.highest, list[Held]()
    with rig.logging(rig.redacts) as (logger, _):
        time.sleep(1.0)
        rig.warm_up(logger, plan.body, plan.connections)
        for _ in range(plan.trials):
            rate = (low * high) ** 0.5
            rig.progress.update(work, description=f"sustained: {rate:,.0f}/s for {plan.trial_seconds:.0f} s")
            trials.append(hold(rig, logger, plan, rate, plan.trial_seconds))
            low, high = (rate, high) if trials[-1].kept_up else (low, rate)
            drained(logger)
            rig.progress.advance(work)
        low *= HEADROOM
        for _ in range(plan.attempts):
            rig.progress.update(work, description=f"sustained: {low:,.0f}/s for {plan.seconds:.0f} s")
            long = hold(rig, logger, plan, low, plan.seconds)
            if long.kept_up:
                break
            low *= 0.9
            drained(logger)
        rig.progress.advance(work)
    return trials, long


def hold(rig: Rig, logger: Contestant, plan: SustainedPlan, rate: float, seconds: float) -> Held:
    """Offer that rate for so long."""
    before, account = gauge.cpu(logger.processes), logger.account()

    def look() -> tuple[int, tuple[float, float]]:
        return logger.account()["waiting"], gauge.together(gauge.memory(logger.processes))

    with gauge.Watch(look, min(1.0, seconds / 10)) as watch:
        rig.client.start(Ask(logger.port, plan.body, plan.connections, seconds, rate, TICK))
        outcome = rig.client.outcome()
    taken = rig.slice_of(logger, plan.body, plan.connections, rate, outcome, before)
    taken.account = logger.account()
    waiting = [(at, one[0]) for at, one in watch.samples]
    lost = _lost(taken.account) - _lost(account)
    growth = _slope(waiting)
    late = np.mean([count for _, count in waiting[-max(1, len(waiting) // 3) :]])
    kept_up = bool(not lost and late <= LAG * rate and outcome.rate >= LEAST_RATE * rate)
    memories = [(at, *one[1]) for at, one in watch.samples]
    return Held(taken, growth, lost, kept_up, waiting, memories)


def _lost(account: Mapping[str, Any]) -> int:
    return sum(account["reasons"].values())


def _slope(waiting: list[tuple[float, int]]) -> float:
    """Of the later two thirds: the first batches are on their way before anything is shipped."""
    later = waiting[len(waiting) // 3 :]
    return float(np.polyfit([at for at, _ in later], [count for _, count in later], 1)[0])


def drained(logger: Contestant, seconds: float = DRAIN_SECONDS) -> float:
    """Wait until nothing waits; how long that took."""
    began = time.monotonic()
    while logger.account()["waiting"] > 0:
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"the backlog did not drain within {seconds:.0f} s: {logger.account()}")
        time.sleep(0.2)
    return time.monotonic() - began
