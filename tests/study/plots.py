"""The study as pictures: false alarms a year, windows to an alarm, the car loans, ACS employment."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from study.monitoring import WINDOW
from study.real import ONSET, CarLoan, Employment

INK, ALARM, CALM, PEER = "#1c2127", "#c8472f", "#2869b0", "#98a3ae"
mpl.rcParams.update(
    {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "servelens"}
)


def _save(figure: Figure, to: Path) -> None:
    figure.tight_layout()
    figure.savefig(to, dpi=120)


def false_alarms(figures: Mapping[str, tuple[float, float]], to: Path) -> None:
    """Alarms a model-year by setting, with the upper 95 % bound."""
    figure = Figure(figsize=(8, 0.6 * len(figures) + 1.2))
    axes = figure.subplots()
    for at, (rate, bound) in enumerate(figures.values()):
        axes.plot([rate, bound], [at, at], color=INK, lw=1)
        axes.plot([bound], [at], "|", color=INK, ms=9)
        axes.plot([rate], [at], "o", color=ALARM if bound > 1 else CALM)
    axes.axvline(1.0, color=PEER, ls="--", lw=1)
    axes.set_yticks(range(len(figures)), list(figures))
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(left=-0.05)
    axes.invert_yaxis()
    axes.set_xlabel("false alarms a model-year (35,000 windows of 1,000 rows); bar to the upper 95 % bound")
    _save(figure, to)


def delays(figures: Mapping[str, Sequence[int | None]], to: Path) -> None:
    """Windows from the shift to the alarm, each dot a reference."""
    figure = Figure(figsize=(8, 0.7 * len(figures) + 1.2))
    axes = figure.subplots()
    for at, found in enumerate(figures.values()):
        known = np.array([delay for delay in found if delay is not None], float)
        spread = np.linspace(-0.25, 0.25, len(known)) if len(known) else known
        axes.plot(known, at + spread, "o", color=CALM, ms=4, alpha=0.8)
        axes.plot([np.median(known)], [at], "|", color=ALARM, ms=24, mew=2)
    axes.set_yticks(range(len(figures)), list(figures))
    axes.set_xlim(left=0)
    axes.invert_yaxis()
    axes.set_xlabel("windows of 1,000 rows until the alarm (red: median)")
    _save(figure, to)


def car_loan(found: CarLoan, to: Path) -> None:
    """KS distance of car_value window by window, where anything was in drift, and where the drift began."""
    figure = Figure(figsize=(8, 3))
    axes = figure.subplots()
    colors = [ALARM if alarm else CALM for alarm in found.alarms]
    axes.bar(range(len(found.effects)), found.effects, color=colors, width=0.8)
    axes.axvline(ONSET / WINDOW - 0.5, color=INK, ls="--", lw=1)
    axes.text(ONSET / WINDOW - 0.7, max(found.effects), "the drift begins", ha="right", va="top", color=INK)
    axes.set_xlabel("window of 1,000 car loans (red: drift said)")
    axes.set_ylabel("KS distance of car_value")
    _save(figure, to)


def employment(years: Sequence[Employment], to: Path) -> None:
    """Effect by column and year, and who called it drift: ours ●, Evidently ▲, scipy with Bonferroni ■."""
    names = sorted(years[-1].effects, key=lambda name: -years[-1].effects[name])
    figure = Figure(figsize=(8, 0.34 * len(names) + 1.4))
    axes = figure.subplots()
    grid = np.array([[year.effects[name] for year in years] for name in names])
    shown = axes.imshow(grid, aspect="auto", cmap="Blues", vmin=0, vmax=max(0.1, float(grid.max())))
    for row, name in enumerate(names):
        for column, year in enumerate(years):
            marks = "".join(
                mark if name in flagged else "   "
                for mark, flagged in ((" ● ", year.ours), (" ▲ ", year.evidently), (" ■ ", year.bonferroni))
            )
            axes.text(column, row, marks, ha="center", va="center", color=ALARM, fontsize=9)
    axes.set_xticks(range(len(years)), [f"{year.year}\n{year.rows:,} rows" for year in years])
    axes.set_yticks(range(len(names)), names)
    axes.set_title("against 2015: ● ServeLens  ▲ Evidently's defaults  ■ scipy + Bonferroni", fontsize=9)
    figure.colorbar(shown, ax=axes, label="effect (KS distance, total variation)")
    _save(figure, to)
