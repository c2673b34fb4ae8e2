"""The tests of one window, or of several merged: every column's p-value and effect, corrected for their number.

Apart from `monitor`, which has the memory: here the same counts always give the same answer. A family (features,
predictions) has its own alpha, so many quiet features never hide a moved prediction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

import numpy as np

from detectors.algorithms import ALGORITHMS, Floats
from detectors.bins import Counts
from detectors.contributions import Share, contributions
from detectors.profile import Profile
from servelens.contract.identity import digest

STATISTICS_VERSION: Final = 1  # raised whenever the same counts may give another verdict
SCALES: Final = (1, 4, 16)
FAMILIES: Final = ("feature", "prediction")
WINDOWS_PER_YEAR: Final = 35_040  # one every 15 minutes, the longest a window waits


@dataclass(frozen=True, slots=True)
class Settings:
    """What a verdict depends on besides counts and profile."""

    alpha: float = 0.001
    """Level of a family in one window, shared equally by the scales; see `alpha_for`."""
    scales: tuple[int, ...] = SCALES
    """Windows merged before a test; scale k > 1 is tested every k // 2 windows."""
    min_effect: float = 0.05
    """KS distance or total variation below which a difference is not called drift, however sure."""
    confirm: int = 2
    """Windows in a row that must hit at scale 1; the larger scales alarm at once."""
    clear: int = 3
    """Windows in a row without a hit until drift is recovering, and as many again until that is ok."""
    n_target: int = 1000
    """Rows at which the evaluator closes a window."""
    n_min: int = 100
    """Rows below which nothing is tested."""

    @property
    def version(self) -> str:
        """Stated in each verdict and part of its id: the code's version and a digest of these values."""
        values = (f"{field.name}={getattr(self, field.name)!r}" for field in fields(self))
        return f"{STATISTICS_VERSION}-{digest(*values)[:12]}"


@dataclass(frozen=True, slots=True)
class ColumnTest:
    """One column at one scale, described by the test that fired or else by the first of its kind.

    `p_adjusted` (Holm) is what is compared with `alpha`; `min_detectable` is the effect from which this test, at this
    number of rows, fires; `shares`: where the rows went, only of a test that fired.
    """

    column: str
    statistic: str
    effect: float
    p: float
    p_adjusted: float
    alpha: float
    min_detectable: float
    fired: bool
    shares: tuple[Share, ...] = ()

    def to_mapping(self) -> dict[str, Any]:
        """JSON form; floats survive it bit for bit."""
        return asdict(self)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "ColumnTest":
        """The inverse of `to_mapping`."""
        return cls(**{**mapping, "shares": tuple(Share(**share) for share in mapping["shares"])})


def alpha_for(
    false_alarms_per_year: float = 1.0,
    scales: Sequence[int] = SCALES,
    windows_per_year: float = WINDOWS_PER_YEAR,
) -> float:
    """`Settings.alpha` at which a model alarms falsely at most so often a year, by the union bound.

    Over all families, windows and scales, granting nothing for the effect gate, for the confirmation at scale 1 or
    for the overlap of merged windows; on top of the probability gamma that the reference itself misleads.
    """
    tests = sum(1 / max(scale // 2, 1) for scale in scales)
    return min(false_alarms_per_year * len(scales) / (windows_per_year * len(FAMILIES) * tests), 0.05)


def holm(p: Floats) -> Floats:
    """Adjusted p-values, (tests,) in the order given (Holm 1979).

    Rejecting those ≤ alpha keeps the chance of any false rejection ≤ alpha under every dependence.
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


def examine(profile: Profile, counts: Sequence[Counts], settings: Settings) -> tuple[ColumnTest, ...]:
    """All columns of a profile against (bins,) counts in the profile's order; one answer a column, same order."""
    found: list[list[ColumnTest]] = [[] for _ in profile.columns]
    for family in FAMILIES:
        members = [at for at, column in enumerate(profile.columns) if column.family == family]
        for at, test in _examine_family(profile, counts, members, settings):
            found[at].append(test)
    telling = [min(tests, key=_telling) for tests in found]
    return tuple(
        replace(test, shares=contributions(column, seen, test.statistic)) if test.fired else test
        for column, seen, test in zip(profile.columns, counts, telling, strict=True)
    )


def _telling(test: ColumnTest) -> tuple[bool, float]:
    """Sorts what fired before what did not, and there by p; ties keep the order of `ALGORITHMS`."""
    return (False, test.p_adjusted) if test.fired else (True, 0.0)


def _examine_family(
    profile: Profile, counts: Sequence[Counts], members: Sequence[int], settings: Settings
) -> list[tuple[int, ColumnTest]]:
    """(column number, test) of every test that applies to the members, in the order of `ALGORITHMS`."""
    chosen = {
        name: [at for at in members if profile.columns[at].kind in algorithm.kinds]
        for name, algorithm in ALGORITHMS.items()
    }
    alpha = settings.alpha / len(settings.scales)
    hypotheses = max(sum(map(len, chosen.values())), 1)
    tests = [
        row
        for name, picked in chosen.items()
        if picked
        for row in _run(name, picked, profile, counts, alpha, hypotheses, settings.min_effect)
    ]
    adjusted = holm(np.array([test.p for _, test in tests])).tolist()
    return [(at, _corrected(test, p, settings)) for (at, test), p in zip(tests, adjusted, strict=True)]


def _run(
    name: str,
    picked: Sequence[int],
    profile: Profile,
    counts: Sequence[Counts],
    alpha: float,
    hypotheses: int,
    min_effect: float,
) -> list[tuple[int, ColumnTest]]:
    """One algorithm on its columns. What it can see is stated at alpha / hypotheses, Holm's first and hardest step."""
    algorithm = ALGORITHMS[name]
    references, seen = [profile.columns[at] for at in picked], [counts[at] for at in picked]
    p, effect = algorithm.test(references, seen)
    visible = algorithm.visible(references, seen, np.full(len(picked), alpha / hypotheses))
    floor = min_effect if algorithm.gated else 0.0
    values = zip(picked, effect.tolist(), p.tolist(), np.maximum(visible, floor).tolist(), strict=True)
    return [
        (at, ColumnTest(profile.columns[at].name, name, size, chance, chance, alpha, least, fired=False))
        for at, size, chance, least in values
    ]


def _corrected(test: ColumnTest, p_adjusted: float, settings: Settings) -> ColumnTest:
    large = test.effect >= settings.min_effect or not ALGORITHMS[test.statistic].gated
    return replace(test, p_adjusted=p_adjusted, fired=p_adjusted <= test.alpha and large)
