"""The faults, as one table: what each does, to whom, and what may be lost by it; everything else may lose nothing.

A fault runs in a thread of its own beside the traffic: it waits for its moment, does its harm, holds it, and lifts it.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from fault_clients import Clients
from fault_damage import damage
from fault_stack import Stack, send

from logger.account import read_account

# Seconds an answer may lie back whose exchange is still in the tap's hands alone: a millisecond until it is looked at,
# two until frames are written, and the event loop's own delay on a busy machine.
IN_HAND: Final = 0.05


@dataclass(slots=True)
class Injected:
    """A fault as it happened, times monotonic. `began`: the signal; `lifted`: all was given back."""

    kind: "Kind"
    began: float = 0.0
    lifted: float = 0.0
    facts: dict[str, float] = field(default_factory=dict)
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """What a fault needs. `flags` start the logger where the fault has ended it."""

    stack: Stack
    clients: Clients
    chance: Random
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """One fault. `loses` are the reasons it may count under; `fails` whether clients may see it; `weight` its share."""

    name: str
    victim: str
    act: Callable[[Scene, Injected], None]
    loses: frozenset[str] = frozenset()
    fails: bool = False
    restarts: Mapping[str, int] = field(default_factory=dict)  # of the logger's children
    weight: int = 2

    def run(self, scene: Scene) -> Injected:
        """Do it, and say how it went."""
        found = Injected(self)
        time.sleep(scene.chance.uniform(0.1, 0.6))
        try:
            self.act(scene, found)
        except Exception as error:  # noqa: BLE001 - a thread's top: the round fails by it
            found.trouble = f"{type(error).__name__}: {error}"
        found.lifted = time.monotonic()
        return found


def _nothing(scene: Scene, found: Injected) -> None:
    found.began = time.monotonic()


def _kill(victim: str) -> Callable[[Scene, Injected], None]:
    def act(scene: Scene, found: Injected) -> None:
        pid = scene.stack.pid(victim)
        found.began = time.monotonic()
        if pid is None:
            return
        found.facts["back_off"] = scene.stack.back_off(victim, pid)
        if victim == "tap":
            _noting_crash(scene, found, lambda: send(pid, signal.SIGKILL))
        else:
            send(pid, signal.SIGKILL)

    return act


def _noting_crash(scene: Scene, found: Injected, kill: Callable[[], None]) -> None:
    """Kill, and note what its tap had in hand: `open` exchanges, and frames handed over but not `uncommitted`."""
    stack, pid = scene.stack, scene.stack.pid("tap")
    path = stack.account_file(pid) if pid else None
    file = path.open("rb") if path else None
    found.began = time.monotonic()
    kill()
    found.facts["in_flight"] = scene.clients.ledger.in_flight(found.began, IN_HAND)
    if path is None or file is None:
        return
    with file:
        committed = stack.committed(path.stem) or 0
        # By its descriptor, since the recorder deletes the file of a tap it has settled.
        counts, _ = read_account(Path(f"/proc/self/fd/{file.fileno()}"))
        found.facts |= {"open": counts.open, "uncommitted": counts.handed - committed}


def _stop(victim: str) -> Callable[[Scene, Injected], None]:
    def act(scene: Scene, found: Injected) -> None:
        pid = scene.stack.pid(victim)
        found.began = time.monotonic()
        if pid is not None:
            _stopped(pid, scene.chance.uniform(0.2, 2.0))

    return act


def _stopped(pid: int, seconds: float) -> None:
    send(pid, signal.SIGSTOP)  # which another fault of this round may have killed
    time.sleep(seconds)
    send(pid, signal.SIGCONT)


def _kill_broker(scene: Scene, found: Injected) -> None:
    found.began = time.monotonic()
    scene.stack.end("kafka")
    time.sleep(scene.chance.uniform(0.0, 0.5))
    scene.stack.start_broker()
    scene.stack.wait_broker()


def _slow_broker(scene: Scene, found: Injected) -> None:
    """It runs a fifth to a half of the time."""
    found.began = time.monotonic()
    pid, until = scene.stack.pid("kafka"), found.began + scene.chance.uniform(1.0, 2.0)
    while pid is not None and time.monotonic() < until:
        _stopped(pid, scene.chance.uniform(0.06, 0.15))
        time.sleep(scene.chance.uniform(0.02, 0.06))


def _kill_predictor(scene: Scene, found: Injected) -> None:
    found.began = time.monotonic()
    scene.stack.end("predictor")
    time.sleep(scene.chance.uniform(0.0, 0.4))
    scene.stack.start_predictor()


def _kill_parent(scene: Scene, found: Injected) -> None:
    """Its children notice and end by themselves, while the next logger already starts."""
    _noting_crash(scene, found, lambda: scene.stack.end("logger"))
    scene.stack.start_logger(*scene.flags)


def _kill_container(scene: Scene, found: Injected) -> None:
    """All of the logger at once, as the kernel does it to a container."""

    def kill() -> None:
        children = scene.stack.children()
        scene.stack.end("logger")
        for child in children:
            send(child, signal.SIGKILL)

    _noting_crash(scene, found, kill)
    scene.stack.start_logger(*scene.flags)


def _fill_disk(scene: Scene, found: Injected) -> None:
    """Not a byte left on the spool's volume, whatever is freed meanwhile."""
    path = scene.stack.spool / "others" / "filling"  # not the logger's, so no part of its bound
    path.parent.mkdir(exist_ok=True)
    until = time.monotonic() + scene.chance.uniform(0.4, 1.5)
    with path.open("ab", buffering=0) as file:
        found.began = time.monotonic()
        while time.monotonic() < until:
            for size in (1 << 20, 4096):
                _fill(file.fileno(), size)
            time.sleep(0.005)
    path.unlink()


def _fill(descriptor: int, size: int) -> None:
    zeros = bytes(size)
    with contextlib.suppress(OSError):
        while os.write(descriptor, zeros):
            pass


def _damage(scene: Scene, found: Injected) -> None:
    """Pages overwritten while the shipper stands still, so that there is something to lose."""
    pid = scene.stack.pid("shipper")
    if pid is not None:
        send(pid, signal.SIGSTOP)
    time.sleep(scene.chance.uniform(0.2, 0.6))
    found.began = time.monotonic()
    found.facts["pages"] = damage(scene.stack.spool, scene.chance)
    if pid is not None:
        send(pid, signal.SIGCONT)


_CRASH: Final = frozenset({"crash"})
KINDS: Final = (
    Kind("quiet", "", _nothing, weight=3),
    Kind("tap killed", "tap", _kill("tap"), _CRASH, fails=True, restarts={"tap": 1}, weight=4),
    Kind("recorder killed", "recorder", _kill("recorder"), restarts={"recorder": 1}, weight=3),
    Kind("shipper killed", "shipper", _kill("shipper"), restarts={"shipper": 1}, weight=3),
    Kind("parent killed", "parent", _kill_parent, _CRASH, fails=True),
    Kind("container killed", "parent", _kill_container, _CRASH, fails=True),
    Kind("tap stopped", "tap", _stop("tap")),
    Kind("recorder stopped", "recorder", _stop("recorder")),
    Kind("shipper stopped", "shipper", _stop("shipper")),
    Kind("parent stopped", "parent", _stop("logger"), weight=1),
    Kind("broker killed", "broker", _kill_broker),
    Kind("broker stopped", "broker", _stop("kafka")),
    Kind("broker slow", "broker", _slow_broker),
    Kind("disk full", "spool", _fill_disk, weight=3),
    Kind("predictor killed", "predictor", _kill_predictor, fails=True, weight=1),
    Kind("predictor stopped", "predictor", _stop("predictor"), weight=1),
    Kind("segment damaged", "spool", _damage, frozenset({"spool_lost"})),
)
BY_NAME: Final = {kind.name: kind for kind in KINDS}
# How the logger is started, and what its own bounds may then drop, whatever the fault. In turn, at each start.
_ROOMY: Final = ("--spool-bytes", "24MiB")  # of a volume of 64: at most half, as operators are told
CONFIGS: Final[Mapping[str, tuple[tuple[str, ...], frozenset[str]]]] = {
    "exchange": (_ROOMY, frozenset()),
    "all": ((*_ROOMY, "--log-mode", "all"), frozenset()),
    "small spool": (("--spool-bytes", "1MiB"), frozenset({"spool_full"})),
    "small spool, old ones dropped": (
        ("--spool-bytes", "1MiB", "--spool-policy", "drop-old"),
        frozenset({"spool_full"}),
    ),
    "small memory": ((*_ROOMY, "--capture-memory", "256KiB"), frozenset({"over_budget"})),
}


def plan(seed: int, rounds: int, kinds: tuple[Kind, ...] = KINDS, pairs: float = 0.4) -> list[tuple[Kind, ...]]:
    """The faults of each round: a shuffled deck of weighted kinds, some with a second one whose victim is another."""
    chance = Random(seed)
    deck: list[Kind] = []
    planned: list[tuple[Kind, ...]] = []
    for _ in range(rounds):
        if not deck:
            deck = [kind for kind in kinds for _ in range(kind.weight)]
            chance.shuffle(deck)
        first = deck.pop()
        others = [kind for kind in deck if kind.victim and first.victim and kind.victim != first.victim]
        if others and chance.random() < pairs:
            second = chance.choice(others)
            deck.remove(second)
            planned.append((first, second))
        else:
            planned.append((first,))
    return planned
