"""`make study-drift`: can the verdicts be believed? False alarms, sight, and two real streams; plots, and figures last.

Seeded: the same figures on every run and any number of processes. `--short` is the form the tests run.
"""

import argparse
import multiprocessing
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import numpy as np  # noqa: E402 -- after the number of threads is set
import pandas as pd  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import Progress  # noqa: E402
from rich.table import Table as Shown  # noqa: E402
from study import peers, plots, real, samples  # noqa: E402 -- the path is made above
from study.monitoring import REFERENCE, WINDOW, Null, Shift, per_year  # noqa: E402

from detectors.statistics import Settings  # noqa: E402

T, R = TypeVar("T"), TypeVar("R")
REPEATS = 20  # references a shift


@dataclass(frozen=True, slots=True)
class Study:
    """How long, where to, and who does the work."""

    short: bool
    out: Path
    console: Console
    progress: Progress
    pool: Any

    def run(self, words: str, do: Callable[[T], R], work: Sequence[T]) -> Iterator[R]:
        """The results of independent pieces of work, as they come."""
        found = self.pool.imap_unordered(do, work)
        yield from self.progress.track(found, len(work), description=f"{words:28}")

    def table(self, title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        shown = Shown(title=title, title_justify="left")
        for heading in headings:
            shown.add_column(heading, overflow="fold")
        for row in rows:
            shown.add_row(*row)
        self.console.print(shown)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a minute instead of half an hour")
    parser.add_argument("--out", type=Path, default=Path("out/study-drift"))
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    asked = parser.parse_args(arguments)
    asked.out.mkdir(parents=True, exist_ok=True)
    console = Console(width=150)
    with multiprocessing.get_context("spawn").Pool(asked.processes) as pool, Progress(console=console) as progress:
        study = Study(asked.short, asked.out, console, progress, pool)
        figures = [figure for part in (nulls, sight, peers_on_nulls, cars, acs) for figure in part(study)]
    console.print(f"pictures are in {asked.out}")
    sys.stdout.write(" ".join(figures) + "\n")


def _nulls(short: bool) -> list[Null]:
    """105,000 independent windows without drift; fewer where rows hang together over long stretches."""
    if short:
        return [Null(rho, 40, seed) for rho in (0.0, 0.02, 0.1) for seed in range(2)]
    work = [Null(rho, 500, seed) for rho in (0.0, 0.02) for seed in range(210)]
    work += [Null(0.1, 500, seed) for seed in range(80)]
    return work + [Null(rho, 200, seed, block) for block in (500, 2000) for rho in (0.02, 0.1) for seed in range(20)]


def nulls(study: Study) -> Iterator[str]:
    found: dict[tuple[int, float, int], list[int]] = defaultdict(list)
    for null, alarms in study.run("windows without drift", Null.run, _nulls(study.short)):
        found[null.block, null.rho, null.windows].append(alarms)
    rows, drawn = [], {}
    for (block, rho, windows), alarms in sorted(found.items()):
        rate, bound = per_year(alarms, windows)
        touched = f"{sum(alarms)} in {sum(map(bool, alarms))} references"
        about = [f"{rho:g}", f"{block:,}" if rho else "1", f"{len(alarms)}", f"{len(alarms) * windows:,}"]
        rows.append([*about, touched, f"{rate:.2f}", f"{bound:.2f}"])
        drawn[f"{rho:g}, {block:,} rows alike" if rho else "independent rows"] = (rate, bound)
        label = f"{rho:g}" + (f"x{block}" if block != samples.BLOCK else "")
        yield f"null{label}={sum(alarms)}/{len(alarms) * windows}(≤{bound:.2f}/year)"
    headings = ("autocorrelation", "rows alike", "references", "windows", "alarms", "a year", "upper 95 %")
    study.table(f"False alarms: twenty columns, references of {REFERENCE:,}, windows of {WINDOW:,}", headings, rows)
    plots.false_alarms(drawn, study.out / "false-alarms.png")


def sight(study: Study) -> Iterator[str]:
    kinds = [(0.25, 0.0), (0.25, 0.001)] + ([] if study.short else [(0.5, 0.0), (0.15, 0.0)])
    work = [Shift(*kind, seed) for kind in kinds for seed in range(REPEATS)]
    found: dict[tuple[float, float], list[int | None]] = defaultdict(list)
    wrong: dict[tuple[float, float], int] = defaultdict(int)
    for one, delay, columns in study.run("a shift in one column", Shift.run, work):
        found[one.shift, one.alpha].append(delay)
        wrong[one.shift, one.alpha] += delay is not None and (delay < 1 or columns != {samples.SHIFTED})
    rows, drawn = [], {}
    for (shift, alpha), delays in sorted(found.items()):
        known = sorted(delay for delay in delays if delay is not None)
        words = f"{alpha or Settings().alpha:.2g}" + ("" if alpha else " (default)")
        middle, most, errors = f"{np.median(known):g}", f"{known[-1]}", f"{wrong[shift, alpha]}"
        rows.append([f"{shift:g}", words, f"{len(known)}/{len(delays)}", middle, most, errors])
        drawn[f"{shift:g} σ, α {words}"] = delays
        said = f"median {middle}, max {most}, wrong {errors}"
        yield f"shift{shift:g}@{alpha or 'default'}={len(known)}/{len(delays)}({said})"
    headings = ("standard deviations", "alpha", "found", "median windows", "most", "wrong or early")
    study.table("A shift in one of twenty columns", headings, rows)
    plots.delays(drawn, study.out / "windows-to-alarm.png")


def _peer(work: tuple[int, int, int]) -> tuple[tuple[int, int], bool, bool]:
    """Whether any of twenty healthy columns is flagged: by Evidently's defaults, and by scipy with Bonferroni."""
    rows, window, seed = work
    rng = np.random.default_rng([rows, window, seed])
    frames = [pd.DataFrame(dict(samples.table(samples.latent(rng, size, 0.0)).columns)) for size in (rows, window)]
    return (rows, window), any(peers.evidently(*frames).values()), any(peers.bonferroni(*frames).values())


def peers_on_nulls(study: Study) -> Iterator[str]:
    repeats = 8 if study.short else 200
    work = [(*size, seed) for size in ((1000, 1000), (10_000, 200)) for seed in range(repeats)]
    found: dict[tuple[int, int], list[tuple[bool, bool]]] = defaultdict(list)
    for size, theirs, corrected in study.run("the same windows, Evidently", _peer, work):
        found[size].append((theirs, corrected))
    rows = []
    for (reference, window), flags in sorted(found.items()):
        theirs, corrected = np.mean(flags, axis=0)
        rows.append([f"{reference:,} / {window:,}", f"{theirs:.1%}", f"{corrected:.1%}"])
        yield f"evidently{reference}/{window}={theirs:.1%}"
    headings = ("reference / window", "Evidently's defaults", "scipy + Bonferroni .05")
    study.table("Windows in which one of twenty healthy columns or more is called drifted", headings, rows)


def cars(study: Study) -> Iterator[str]:
    found = real.car_loan()
    said = f"{found.early} windows in drift before it begins; {found.late} windows late"
    study.console.print(f"Car loans: {said}; {', '.join(found.columns)}")
    plots.car_loan(found, study.out / "car-loan.png")
    yield f"carloan=early {found.early}, late {found.late}"


def acs(study: Study) -> Iterator[str]:
    years = real.employment()
    rows = []
    for year in years:
        judges = (year.ours, year.evidently, year.bonferroni)
        words = [f"{len(named)}: {', '.join(sorted(named))}" if named else "none" for named in judges]
        rows.append([str(year.year), f"{year.rows:,}", *words])
    headings = ("year", "rows", "ServeLens", "Evidently's defaults", "scipy + Bonferroni .05")
    study.table("ACS employment against 2015 (2015: one half of it against the other)", headings, rows)
    plots.employment(years, study.out / "acs-employment.png")
    counts = (f"{year.year}: {len(year.ours)}|{len(year.evidently)}|{len(year.bonferroni)}" for year in years)
    yield f"acs={', '.join(counts)}"


if __name__ == "__main__":
    main()
