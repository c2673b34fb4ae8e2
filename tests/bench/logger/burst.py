"""Rows 1 and 2 of the design's table: forwarding with logging off, and a burst with all of it logged, beside nginx.

Rounds are interleaved: in each, nginx and the tap that logs nothing, once in a closed loop and once at the same paced
rate (a share of what nginx just did). Between the rounds the bursts, each on a logger with an empty spool.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import gauge
from contestants import Contestant
from load import Ask
from rig import DIRECT, NGINX, OFF, Rig, Slice

PACED_SHARE = 0.3  # of nginx's closed loop: more, one request at a time, would fill the core of client and predictor
SETTLE = 1.0  # seconds a fresh logger has to reach its broker


@dataclass(frozen=True)
class BurstPlan:
    """How long each piece takes; seconds."""

    bodies: Sequence[str]
    connections: Sequence[int]
    rounds: int
    seconds: float
    burst_seconds: float

    @property
    def cells(self) -> list[tuple[str, int]]:
        """Body and connections of each."""
        return [(body, connections) for body in self.bodies for connections in self.connections]


def run(rig: Rig, plan: BurstPlan) -> list[Slice]:
    """All cells; the slices in the order they were taken."""
    found: list[Slice] = []
    bursts = [False, True] if rig.redacts else [False]
    work = rig.progress.add_task("burst", total=len(plan.cells) * (plan.rounds + len(bursts)))
    with rig.others() as others:
        for body, connections in plan.cells:
            for number in range(plan.rounds):
                rig.progress.update(work, description=f"{body} × {connections}, round {number + 1}")
                found += _round(rig, others, plan, body, connections, number)
                rig.progress.advance(work)
                # Spread over the rounds: each burst has rounds before and after it, if there are enough.
                for redact in bursts[number :: plan.rounds]:
                    rig.progress.update(
                        work, description=f"{body} × {connections}, {'redacted' if redact else 'logged'}"
                    )
                    found.append(_burst(rig, plan, body, connections, number, redact))
                    rig.progress.advance(work)
    return found


def _round(
    rig: Rig, others: Mapping[str, Contestant], plan: BurstPlan, body: str, connections: int, number: int
) -> Iterator[Slice]:
    paced = 0.0
    first = [DIRECT] if not number else []
    for name in (*first, NGINX, OFF):
        rig.warm_up(others[name], body, connections)
        taken, _ = rig.measure(others[name], body, connections, plan.seconds)
        paced = taken.rate * PACED_SHARE if name == NGINX else paced
        taken.round = number
        yield taken
    for name in (NGINX, OFF) if number % 2 else (OFF, NGINX):
        taken, _ = rig.measure(others[name], body, connections, plan.seconds, paced)
        taken.round = number
        yield taken


def _burst(rig: Rig, plan: BurstPlan, body: str, connections: int, number: int, redact: bool) -> Slice:
    with rig.logging(redact) as (logger, _):
        time.sleep(SETTLE)
        rig.warm_up(logger, body, connections)
        before = gauge.cpu(logger.processes)
        with gauge.Watch(lambda: gauge.memory(logger.processes), 2.0) as watch:
            rig.client.start(Ask(logger.port, body, connections, plan.burst_seconds))
            outcome = rig.client.outcome()
        taken = rig.slice_of(logger, body, connections, 0.0, outcome, before)
        memories = [one for _, one in watch.samples] or [gauge.memory(logger.processes)]
        taken.memory, taken.account, taken.round = max(memories, key=gauge.together), logger.account(), number
    return taken
