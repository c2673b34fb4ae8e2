"""A run of fault rounds: traffic, faults, the stack at rest again, and the checks; then the next.

Used by `tests/faults/rounds.py` for hundreds of them and by its test for a few.
"""

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

from fault_checks import Check, Round, checks
from fault_clients import Clients
from fault_kinds import CONFIGS, Kind, Scene
from fault_reader import Topic
from fault_stack import Stack, wait

SETTLING = 60.0  # seconds
TRAFFIC = 1.0
AFTER = 0.25  # seconds of traffic after the last fault is lifted
FRESH = 12  # rounds after which the logger is started otherwise, if no fault has done it


class Run:
    """One stack and its rounds. `results` has every round with the checks that did not hold."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.stack, self.seed = Stack(folder), seed
        self.clients = Clients(self.stack.ports["tap"], seed)
        self.topic = Topic(self.stack)
        self.results: list[tuple[Round, list[Check]]] = []
        self._configs = itertools.cycle(CONFIGS)
        self._config = ""
        self._age = 0

    def start(self) -> None:
        self.stack.start()
        self._config = next(self._configs)
        self.stack.start_logger(*CONFIGS[self._config][0])
        wait("ready", self.stack.ready)

    def fresh(self) -> None:
        """Stop the logger as an operator does, and start it another way."""
        self.stack.stop_logger()
        self._config, self._age = next(self._configs), 0
        self.stack.start_logger(*CONFIGS[self._config][0])
        wait("ready", self.stack.ready)

    def round(self, number: int, kinds: Sequence[Kind]) -> tuple[Round, list[Check]]:
        """One round and the checks that did not hold."""
        began = time.monotonic()
        if self._age >= FRESH:
            self.fresh()
        self._age += 1
        chance = Random(f"{self.seed}-{number}")
        config, ended = self._config, any(kind.victim == "parent" and kind.fails for kind in kinds)
        if ended:
            self._config, self._age = next(self._configs), 0
        loses = frozenset[str]().union(CONFIGS[config][1], CONFIGS[self._config][1], *(kind.loses for kind in kinds))
        if any(kind.name == "disk full" for kind in kinds) and any("crash" in kind.loses for kind in kinds):
            loses |= {"over_budget"}  # a tap that starts on a full volume serves, and logs nothing yet
        names = config if config == self._config else f"{config} → {self._config}"
        known = set(self.topic.numbers)
        before = self.stack.spooled()
        one = Round(number, names, self.clients.begin(), [], before, loses=loses)
        self._break(one, [Scene(self.stack, self.clients, Random(chance.random()), CONFIGS[self._config][0])], kinds)
        self.clients.end()
        self._settle(one)
        self.topic.read()
        one.arrived = len(self.topic.numbers) - len(known)
        one.missing = [asked.number for asked in one.ledger.answered if asked.number not in self.topic.numbers]
        one.problems, self.topic.problems = self.topic.problems, []
        one.seconds = time.monotonic() - began
        failed = [check for check in checks(one) if not check.held]
        self.results.append((one, failed))
        return one, failed

    def _break(self, one: Round, scenes: Sequence[Scene], kinds: Sequence[Kind]) -> None:
        (scene,) = scenes
        until = time.monotonic() + TRAFFIC

        def act(kind: Kind) -> None:
            own = Scene(scene.stack, scene.clients, Random(f"{scene.chance.random()}-{kind.name}"), scene.flags)
            one.injected.append(kind.run(own))

        threads = [threading.Thread(target=act, args=(kind,), name=kind.name) for kind in kinds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(max(AFTER, until - time.monotonic()))

    def _settle(self, one: Round) -> None:
        began = time.monotonic()
        answered = len(one.ledger.answered)

        def settled() -> bool:
            if not self.stack.ready():
                return False
            one.after = self.stack.spooled() or one.after
            return bool(one.after) and not one.after["waiting"] and one.after["adds_up"] and (
                one.more("offered") >= answered
            )  # fmt: skip

        try:
            wait("settled", settled, SETTLING, 0.02)
            one.settled = round(time.monotonic() - began, 2)
        except TimeoutError:
            one.settled = None

    def finish(self) -> list[Check]:
        """End the logger; whether everything is in Kafka still, and accounting events have told the whole account."""
        self.stack.stop_logger()
        self.topic.read(again=1 << 62)
        account = self.stack.account()
        lossy = any("spool" in found.kind.victim for one, _ in self.results for found in one.injected)
        told = Counter({name: count for name, count in account.reasons.items() if count})
        same = self.topic.offered == account.offered and self.topic.reasons == told
        words = f"{self.topic.offered} of {account.offered}; {dict(self.topic.reasons)} of {dict(told)}"
        return [
            Check("Kafka has all it ever had", not self.topic.problems, "; ".join(self.topic.problems[:5])),
            Check("at the end the account adds up", account.adds_up and not account.waiting, str(account)),
            Check("accounting events tell the whole account", same or lossy, words),
        ]


@contextmanager
def running(folder: Path, seed: int) -> Iterator[Run]:
    run = Run(folder, seed)
    try:
        run.start()
        yield run
    finally:
        run.stack.stop()


def told(one: Round, failed: Sequence[Check], seed: int) -> str:
    """A failed round, for whoever has to find out."""
    injected = [f"{found.kind.name} at {found.began - _start(one):.2f} s {found.facts}" for found in one.injected]
    ledger = {
        "asked": len(one.ledger.asked), "answered": len(one.ledger.answered), "failed": len(one.ledger.failed),
        "refused": len(one.ledger.refused), "p99": round(one.ledger.quantile(0.99), 4),
    }  # fmt: skip
    return "\n".join(
        [
            f"round {one.number}, seed {seed}, logger {one.config}: {'; '.join(injected)}",
            *(f"  NOT {check.name}: {check.words}" for check in failed),
            f"  ledger {ledger}",
            f"  lost {dict(one.lost)}, settled after {one.settled} s",
            f"  before {json.dumps(one.before)}",
            f"  after  {json.dumps(one.after)}",
        ]
    )


def _start(one: Round) -> float:
    return min((asked.began for asked in one.ledger.asked), default=0.0)
