"""Fault rounds against Apache Kafka: `python tests/faults/rounds.py --rounds 200 --seed 1`.

Each round breaks one or two parts of a running stack under traffic and then asks whether every answered request is in
Kafka or counted. A failed round is printed and the folder kept; the last line has the figures.
"""

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]  # run as a script

from fault_kinds import BY_NAME, KINDS, Kind, plan  # noqa: E402
from fault_round import Run, running, told  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn  # noqa: E402
from rich.table import Table  # noqa: E402


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default="", help="only these, comma-separated: " + ", ".join(BY_NAME))
    parser.add_argument("--only", default="", help="only the rounds of these numbers, comma-separated")
    parser.add_argument("--keep", action="store_true", help="keep the folder in any case")
    return parser.parse_args()


def main() -> int:
    arguments, console = parsed(), Console(width=160, soft_wrap=True)
    kinds = tuple(BY_NAME[name.strip()] for name in arguments.kinds.split(",")) if arguments.kinds else KINDS
    folder = Path(tempfile.mkdtemp(prefix="sl-faults-"))
    planned = list(enumerate(plan(arguments.seed, arguments.rounds, kinds), 1))
    if arguments.only:
        planned = [one for one in planned if str(one[0]) in arguments.only.split(",")]
    with running(folder, arguments.seed) as run:
        if not run.stack.mounted:
            console.print("no tmpfs can be mounted here (needs root): the disk is never full in these rounds")
            planned = [(number, tuple(k for k in kinds if k.name != "disk full")) for number, kinds in planned]
        played(run, planned, console)
        ending = [check for check in run.finish() if not check.held]
    for check in ending:
        console.print(f"NOT {check.name}: {check.words}", markup=False)
    bad = sum(1 for _, failed in run.results if failed)
    if bad or ending or arguments.keep:
        console.print(f"kept: {folder}")
    else:
        shutil.rmtree(folder)
    console.print(by_kind(run))
    console.print(figures(run, bad, len(ending)), markup=False)
    return int(bool(bad or ending))


def played(run: Run, planned: list[tuple[int, tuple[Kind, ...]]], console: Console) -> None:
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("rounds", total=len(planned))
        for number, kinds in planned:
            progress.update(task, description=f"{', '.join(kind.name for kind in kinds):40}")
            one, failed = run.round(number, kinds)
            if failed:
                progress.console.print(told(one, failed, run.seed), markup=False, highlight=False)
            progress.advance(task)


def by_kind(run: Run) -> Table:
    """Every kind: its rounds, what was lost in them, and how long answers took beside those of quiet rounds."""
    table = Table(title="rounds with each fault, alone or with a second one; latency where it was alone, in ms")
    for name in ("fault", "rounds", "alone", "p50", "p99", "max", "settled, s", "round, s", "lost"):
        table.add_column(name, justify="left" if name in ("fault", "lost") else "right")
    for kind in KINDS:
        rounds = [one for one, _ in run.results if kind.name in one.names]
        alone = [one for one in rounds if len(one.injected) == 1]
        lost = sum((one.lost for one in rounds), Counter[str]())
        times = sorted(asked.seconds * 1e3 for one in alone for asked in one.ledger.asked if asked.status == 200)
        shown = [
            f"{times[min(len(times) - 1, int(share * len(times)))]:.1f}" if times else "" for share in (0.5, 0.99, 1)
        ]
        settled = max((one.settled or 0.0 for one in rounds), default=0.0)
        mean = sum(one.seconds for one in rounds) / max(1, len(rounds))
        words = ", ".join(f"{count} {name}" for name, count in lost.items())
        table.add_row(kind.name, str(len(rounds)), str(len(alone)), *shown, f"{settled:.1f}", f"{mean:.1f}", words)
    return table


def figures(run: Run, bad: int, ending: int) -> str:
    rounds = [one for one, _ in run.results]
    asked = sum(len(one.ledger.asked) for one in rounds)
    answered = sum(len(one.ledger.answered) for one in rounds)
    lost = sum((one.lost for one in rounds), Counter[str]())
    mean = sum(one.seconds for one in rounds) / max(1, len(rounds))
    return (
        f"{len(rounds)} rounds, {bad} failed, {ending} end checks failed; {asked} sent, {answered} answered, "
        f"{len(run.topic.numbers)} in Kafka ({run.topic.repeated} records repeated), lost {dict(lost)}; "
        f"{mean:.1f} s a round, 200 would take {mean * 200 / 60:.0f} min"
    )


if __name__ == "__main__":
    sys.exit(main())
