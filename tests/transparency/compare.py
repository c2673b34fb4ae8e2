"""The long form of the comparison: `python tests/transparency/compare.py --exchanges 100000 --seed 1`.

Apart from the short form, which is a test. The last line holds the figures; the exit code is 1 if anything differs.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from byte_compare import Account, Figures, compare, misrecorded, taps  # noqa: E402
from byte_kinds import scripts  # noqa: E402


def main() -> int:
    """Compare, and tell what differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--exchanges", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        taps(Path(folder)) as running,
        Progress(*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn()) as progress,
    ):
        task = progress.add_task("exchanges", total=given.exchanges)
        figures = compare(scripts(given.seed, given.exchanges), running.ways, lambda done: progress.advance(task, done))
        account = running.settled()
        missing, wrong = misrecorded(figures.logged, running.recorder.exchanges)
    return _tell(figures, account, missing, wrong)


def _tell(figures: Figures, account: Account, missing: list[str], wrong: list[str]) -> int:
    console = Console(soft_wrap=True, markup=False, highlight=False)
    for difference in figures.kept:
        console.print(str(difference))
    console.print("differing:", dict(figures.differing))
    console.print("ends (client/server, direct):", dict(figures.ends))
    console.print("missing records:", missing[:10], "wrong records:", wrong[:10])
    console.print(f"offered={account.offered} handed={account.handed} reasons={dict(account.reasons)}")
    console.print(
        f"exchanges={figures.exchanges} connections={figures.connections} plays={figures.plays} "
        f"kinds={len(figures.kinds)} differing={figures.differ} "
        f"stuck={figures.stuck} known_records={len(figures.logged)} missing={len(missing)} wrong={len(wrong)} "
        f"adds_up={account.adds_up}"
    )
    return 0 if figures.differ == figures.stuck == len(wrong) == 0 and account.adds_up else 1


if __name__ == "__main__":
    sys.exit(main())
