"""`make crash-proof`: kills, zombies, rebalances, broker restarts and retention, two groups; is every row counted once?

`--short` is the form the tests run. The last line has the figures.
"""

import argparse
import logging
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]  # run as a script

from crash.checks import checks, counted  # noqa: E402
from crash.ledger import ROWS, Producer  # noqa: E402
from crash.stack import SLOTS, Stack  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402

RATE = 90.0  # exchanges a second
ASLEEP = (7.0, 12.0)  # seconds of a zombie's sleep: longer than a session


@dataclass(slots=True)
class Breaking:
    """What is done to the stack, and how often it was."""

    stack: Stack
    rng: random.Random
    done: Counter[str] = field(default_factory=Counter)
    sleepers: list[threading.Thread] = field(default_factory=list)
    extra: int = 2

    def victim(self, role: str = "") -> str:
        names = [name for name in self.stack.children if name != "kafka" and role in name]
        return self.rng.choice(names)

    def kill(self) -> None:
        self.stack.signal(self.victim(), signal.SIGKILL)

    def zombie(self) -> None:
        """Stopped for longer than its session or lease, then it goes on as if nothing had been."""
        name, pid = self.victim(), None
        pid = self.stack.children[name].pid
        if pid is None:
            return self.zombie()
        self.stack.signal(name, signal.SIGSTOP)
        seconds = self.rng.uniform(*ASLEEP)

        def wake() -> None:
            time.sleep(seconds)
            if self.stack.children.get(name) is not None and self.stack.children[name].pid == pid:
                self.stack.signal(name, signal.SIGCONT)

        self.sleepers.append(threading.Thread(target=wake, daemon=True))
        self.sleepers[-1].start()
        return None

    def rebalance(self) -> None:
        """A worker more, and later it leaves again."""
        group = self.rng.choice(list(SLOTS))
        self.extra += 1
        name = f"{group}-worker-{self.extra}"
        self.stack.add_detector(group, "worker", self.extra)
        time.sleep(8)
        self.stack.remove(name)

    def broker(self) -> None:
        self.stack.restart_broker(hard=self.rng.random() < 0.5)

    def retention(self) -> None:
        """All workers of a group sleep while the beginning of a partition goes, unread part included."""
        group = self.rng.choice(list(SLOTS))
        names = [name for name in self.stack.children if name.startswith(f"{group}-worker")]
        for name in names:
            self.stack.signal(name, signal.SIGSTOP)
        time.sleep(4)
        partition = self.rng.randrange(4)
        read, end = counted(self.stack, group).next[partition], self.stack.ends(self.stack.topics.payloads)[partition]
        self.stack.delete_records(partition, max(read + 1, (read + end) // 2))
        for name in names:
            self.stack.signal(name, signal.SIGCONT)
        time.sleep(2)


def plan(short: bool, rng: random.Random) -> list[str]:
    many = {"kill": 4, "zombie": 2, "rebalance": 1, "broker": 1, "retention": 1} if short else {
        "kill": 34, "zombie": 17, "rebalance": 4, "broker": 3, "retention": 3,
    }  # fmt: skip
    deck = [name for name, count in many.items() for _ in range(count)]
    rng.shuffle(deck)
    return deck


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a minute and a half instead of six")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    logging.getLogger("servelens").setLevel(logging.ERROR)  # deaths are what this is about
    console, folder = Console(width=150), Path(tempfile.mkdtemp(prefix="servelens-proof-"))
    stack, rng = Stack(folder), random.Random(asked.seed)
    try:
        stack.start()
        producer = Producer(stack.settings, stack.topics.payloads, 3500 if asked.short else 27_000, RATE, asked.seed)
        broken = play(stack, producer, plan(asked.short, rng), rng, console)
        found = list(checks(stack, producer))
    finally:
        stack.stop()
    for check in found:
        console.print(f"{'held  ' if check.held else 'BROKEN'} {check.name}: {check.words}", markup=False)
    held = all(check.held for check in found)
    if held:
        shutil.rmtree(folder)
    else:
        console.print(f"kept: {folder}")
    fences = {group: broken.fences[group] for group in SLOTS}
    words = ", ".join(f"{count} {name}" for name, count in sorted(broken.done.items()))
    rows = ROWS * len(producer.sent)
    sys.stdout.write(f"rows={rows} groups={len(SLOTS)} broken={sum(not c.held for c in found)} {words} {fences}\n")
    return int(not held)


@dataclass(slots=True)
class Played:
    done: Counter[str]
    fences: dict[str, dict[str, int]]


def play(stack: Stack, producer: Producer, deck: list[str], rng: random.Random, console: Console) -> Played:
    """Traffic and what is done to it, evenly spread; then calm until everything is read."""
    breaking = Breaking(stack, rng)
    acts: dict[str, Callable[[], None]] = {name: getattr(breaking, name) for name in set(deck)}
    columns = (TextColumn("{task.description:20}"), MofNCompleteColumn(), TimeElapsedColumn())
    sender = threading.Thread(target=producer.run, daemon=True)
    time.sleep(8)  # the groups have met
    sender.start()
    seconds, began = producer.total / RATE, time.monotonic()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("breaking", total=len(deck))
        for number, name in enumerate(deck):
            time.sleep(max(0.0, began + seconds * 0.9 * (number + 1) / (len(deck) + 1) - time.monotonic()))
            progress.update(task, description=name)
            acts[name]()
            breaking.done[name] += 1
            progress.advance(task)
        progress.update(task, description="waiting")
        sender.join(600)
        for sleeper in breaking.sleepers:
            sleeper.join(20)
        _calm(stack)
    fences = {group: dict(counted(stack, group).verdicts) for group in SLOTS}
    return Played(breaking.done, fences)


def _calm(stack: Stack) -> None:
    """Until both groups have read to the end, and have been given time to judge the last windows."""
    deadline = time.monotonic() + 120
    ends = stack.ends(stack.topics.payloads)
    while any(counted(stack, group).next != ends for group in SLOTS):
        if time.monotonic() > deadline:
            break  # the checks will say what is missing
        time.sleep(2)
    time.sleep(12)


if __name__ == "__main__":
    raise SystemExit(main())
