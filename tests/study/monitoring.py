"""What the monitor says of windows whose truth is known: false alarms without drift, and how soon drift is named.

Every figure is of the product's own code: `build_profile`, `Pane`, `monitor.step`. Pieces of work are independent and
seeded by their place, so that any number of processes gives the same figures.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from study import samples

from detectors.monitor import DRIFT, MonitorState, step
from detectors.pane import Pane
from detectors.profile import Profile
from detectors.statistics import Settings

WINDOW = 1000  # rows
REFERENCE = 10_000
YEAR = 35_000  # windows, one every quarter of an hour


def drifted(windows: Iterator[Pane], profile: Profile, settings: Settings) -> Iterator[frozenset[str]]:
    """The columns in drift after each window."""
    state = MonitorState.start(profile)
    for window in windows:
        state, result = step(state, window, profile, settings)
        yield frozenset(column.column for column in result.columns if column.state == DRIFT)


@dataclass(frozen=True, slots=True)
class Null:
    """A reference and windows of the same truth: `rho` autocorrelation, `block` rows that share it."""

    rho: float
    windows: int
    seed: int
    block: int = samples.BLOCK
    rows: int = REFERENCE

    def windows_of(self, rng: np.random.Generator, counter: samples.Counter) -> Iterator[Pane]:
        """Windows of one stream: what hangs together may span two of them."""
        at_once = max(1, 4 * self.block // WINDOW)
        for start in range(0, self.windows, at_once):
            z = samples.latent(rng, at_once * WINDOW, self.rho, block=self.block)
            for number in range(min(at_once, self.windows - start)):
                yield counter.pane(z[:, number * WINDOW : (number + 1) * WINDOW])

    def run(self) -> tuple["Null", int]:
        """Itself, and how many alarms there were: columns that went into drift while none was."""
        rng = np.random.default_rng([self.seed, round(self.rho * 1000), self.block, self.rows])
        profile = samples.profile_of(rng, self.rows, self.rho, self.block)
        counter, alarms, before = samples.Counter.of(profile), 0, frozenset[str]()
        for now in drifted(self.windows_of(rng, counter), profile, Settings()):
            alarms += bool(now) and not before
            before = now
        return self, alarms


@dataclass(frozen=True, slots=True)
class Shift:
    """Quiet windows, then `shift` standard deviations in one of twenty columns; `alpha` 0 for the default."""

    shift: float
    alpha: float
    seed: int
    quiet: int = 20
    most: int = 40

    def run(self) -> tuple["Shift", int | None, frozenset[str]]:
        """Itself, windows from the shift to the alarm (None: not within `most`), and the columns named."""
        rng = np.random.default_rng([self.seed, round(self.shift * 1000), 1])
        profile = samples.profile_of(rng, REFERENCE, 0.0)
        counter = samples.Counter.of(profile)
        settings = Settings(alpha=self.alpha) if self.alpha else Settings()
        shifts = [0.0] * self.quiet + [self.shift] * self.most
        windows = (counter.pane(samples.latent(rng, WINDOW, 0.0, shift)) for shift in shifts)
        for number, columns in enumerate(drifted(windows, profile, settings), 1):
            if columns:
                return self, number - self.quiet, columns
        return self, None, frozenset()


def per_year(alarms: Sequence[int], windows: int) -> tuple[float, float]:
    """Alarms a model-year, and the upper 95 % bound, of references with so many windows each.

    Alarms of one reference hang together, so the references are the clusters; without any alarm the bound is that of
    independent windows (Poisson), as it is where clusters say less than that.
    """
    total, all_windows = sum(alarms), len(alarms) * windows
    independent = float(stats.chi2.ppf(0.95, 2 * total + 2)) / 2
    spread = float(np.std(alarms, ddof=1)) * np.sqrt(len(alarms)) if len(alarms) > 1 else 0.0
    clustered = total + float(stats.t.ppf(0.95, max(len(alarms) - 1, 1))) * spread
    return YEAR * total / all_windows, YEAR * max(independent, clustered) / all_windows
