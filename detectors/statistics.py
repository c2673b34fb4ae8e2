"""The tests of one window, or of several merged: every column's p-value and effect, corrected for their number.

Apart from `monitor`, which has the memory: here the same counts always give the same answer. A family (features,
predictions, data quality) has its own alpha, so many quiet features never hide a moved prediction or a missing column.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

import numpy as np

from detectors import requests
from detectors.algorithms import ALGORITHMS, Floats
from detectors.bins import Counts
from detectors.columns import ColumnReference
from detectors.contributions import Share, contributions
from detectors.pane import Pane
from detectors.profile import Profile
from servelens.contract.identity import digest

STATISTICS_VERSION: Final = 2  # raised whenever the same counts may give another verdict
SCALES: Final = (1, 4, 16)
FAMILIES: Final = ("feature", "prediction", "quality")
YEAR: Final = 31_536_000  # seconds
SHORTEST_WINDOW: Final = 60  # seconds of event time


def alpha_for(
    false_alarms_per_year: float = 1.0,
    shortest_window: float = SHORTEST_WINDOW,
    scales: Sequence[int] = SCALES,
) -> float:
    """`Settings.alpha` at which a model alarms falsely at most so often a year, by the union bound.

    Over all families and scales and the most windows a year can have (each at least `shortest_window` seconds),
    granting nothing for the effect gate, for the confirmation at scale 1 or for the overlap of merged windows; on top
    of the probability gamma that the reference itself misleads.
    """
    tests = sum(1 / max(scale // 2, 1) for scale in scales)
    return min(false_alarms_per_year * len(scales) * shortest_window / (YEAR * len(FAMILIES) * tests), 0.05)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a verdict depends on besides counts and profile."""

    alpha: float = alpha_for()
    """Level of a family in one window, shared equally by the scales."""
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


def holm(p: Floats) -> Floats:
    """Adjusted p-values, (tests,) in the order given (Holm 1979).

    Rejecting those ≤ alpha keeps the chance of any false rejection ≤ alpha under every dependence.
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


def names(profile: Profile) -> tuple[str, ...]:
    """What is tested, in the order of `examine`: the profile's columns, and the requests themselves."""
    return (*(column.name for column in profile.columns), requests.NAME)


def examine(profile: Profile, pane: Pane, settings: Settings) -> tuple[ColumnTest, ...]:
    """All columns of a profile, and the requests, against what a window counted: one answer each, as `names` orders."""
    references, counts = profile.against(pane.seasons), pane.split()
    found: list[list[ColumnTest]] = [[] for _ in names(profile)]
    for family in FAMILIES:
        for at, test in _examine_family(family, references, counts, pane, settings):
            found[at].append(test)
    telling = [min(tests, key=_telling) for tests in found]
    explained = [
        replace(test, shares=contributions(column, seen, test.statistic)) if test.fired else test
        for column, seen, test in zip(references, counts, telling, strict=False)
    ]
    return (*explained, telling[-1])


def _telling(test: ColumnTest) -> tuple[bool, float]:
    """Sorts what fired before what did not, and there by p; ties keep the order of `ALGORITHMS`."""
    return (False, test.p_adjusted) if test.fired else (True, 0.0)


def _examine_family(
    family: str,
    references: Sequence[ColumnReference],
    counts: Sequence[Counts],
    pane: Pane,
    settings: Settings,
) -> list[tuple[int, ColumnTest]]:
    """(number in `names`, test) of every test of the family, in the order of `ALGORITHMS`, Holm's correction done."""
    chosen = {
        name: [
            at
            for at, column in enumerate(references)
            if algorithm.applies(column) and (algorithm.quality if family == "quality" else column.family == family)
        ]
        for name, algorithm in ALGORITHMS.items()
        if algorithm.quality == (family == "quality")
    }
    asked = requests.STATISTICS if family == "quality" else ()
    hypotheses = max(sum(map(len, chosen.values())) + len(asked), 1)
    level = settings.alpha / len(settings.scales)
    tests = [
        row
        for name, picked in chosen.items()
        if picked
        for row in _run(name, picked, references, counts, level, hypotheses, settings.min_effect)
    ]
    tests += [(len(references), _requests(statistic, pane, level, hypotheses)) for statistic in asked]
    adjusted = holm(np.array([test.p for _, test in tests])).tolist()
    return [(at, _corrected(test, p, settings)) for (at, test), p in zip(tests, adjusted, strict=True)]


def _run(
    name: str,
    picked: Sequence[int],
    references: Sequence[ColumnReference],
    counts: Sequence[Counts],
    alpha: float,
    hypotheses: int,
    min_effect: float,
) -> list[tuple[int, ColumnTest]]:
    """One algorithm on its columns. What it can see is stated at alpha / hypotheses, Holm's first and hardest step."""
    algorithm = ALGORITHMS[name]
    chosen, seen = [references[at] for at in picked], [counts[at] for at in picked]
    p, effect = algorithm.test(chosen, seen)
    visible = algorithm.visible(chosen, seen, np.full(len(picked), alpha / hypotheses))
    floor = 0.0 if algorithm.quality else min_effect
    values = zip(picked, effect.tolist(), p.tolist(), np.maximum(visible, floor).tolist(), strict=True)
    return [
        (at, ColumnTest(references[at].name, name, size, chance, chance, alpha, least, fired=False))
        for at, size, chance, least in values
    ]


def _requests(statistic: str, pane: Pane, alpha: float, hypotheses: int) -> ColumnTest:
    effect, p, least = requests.test(statistic, pane, alpha / hypotheses)
    return ColumnTest(requests.NAME, statistic, effect, p, p, alpha, least, fired=False)


def _corrected(test: ColumnTest, p_adjusted: float, settings: Settings) -> ColumnTest:
    gated = test.statistic in ALGORITHMS and not ALGORITHMS[test.statistic].quality
    return replace(
        test,
        p_adjusted=p_adjusted,
        fired=p_adjusted <= test.alpha and (not gated or test.effect >= settings.min_effect),
    )
