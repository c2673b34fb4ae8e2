"""Canary against stable: two revisions of a model over the same slots, and what is remembered of their comparison.

Apart from `monitor`, which compares with a reference: here a difference says that the revisions see or say something
else, whatever the world does. Called by the evaluator at every cut that holds enough rows of both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from detectors.algorithms import two_sample
from detectors.contributions import compared
from detectors.monitor import ColumnResult, ColumnState, WindowResult, advance
from detectors.pane import Pane
from detectors.profile import Profile
from detectors.statistics import ColumnTest, Settings, holm


@dataclass(frozen=True, slots=True)
class Comparison:
    """`windows`: how many were compared; `columns`: in the profile's order."""

    windows: int
    columns: tuple[ColumnState, ...]

    @classmethod
    def start(cls, profile: Profile) -> "Comparison":
        """Before the first window."""
        return cls(0, (ColumnState(),) * len(profile.columns))


def compare(
    state: Comparison, here: Pane, there: Pane, profile: Profile, settings: Settings
) -> tuple[Comparison, WindowResult]:
    """One window later: `here` (the fewer rows, as a rule the canary) against `there`, of the same slots."""
    tests, now = _tests(here, there, profile, settings), state.windows + 1
    columns, results = [], []
    for before, test in zip(state.columns, tests, strict=True):
        after = advance(before, {1: test}, now, settings)
        columns.append(after)
        results.append(ColumnResult(test.column, before.state, after.state, 1, test))
    return Comparison(now, tuple(columns)), WindowResult(here, (1,), tuple(results))


def _tests(here: Pane, there: Pane, profile: Profile, settings: Settings) -> Sequence[ColumnTest]:
    """One a column, corrected (Holm) within features and within predictions, each at the settings' whole alpha."""
    families = [column.family for column in profile.columns]
    tests = [
        ColumnTest(column.name, statistic, effect, p, p, settings.alpha, max(least, settings.min_effect), fired=False)
        for column, mine, other in zip(profile.columns, here.split(), there.split(), strict=True)
        for statistic, p, effect, least in (
            two_sample.test(column, mine, other, settings.alpha / families.count(column.family)),
        )
    ]
    for family in set(families):
        at = [number for number, name in enumerate(families) if name == family]
        for number, p in zip(at, holm(np.array([tests[number].p for number in at])).tolist(), strict=True):
            fired = p <= settings.alpha and tests[number].effect >= settings.min_effect
            column = profile.columns[number]
            shares = compared(column, there.split()[number], here.split()[number]) if fired else ()
            tests[number] = replace(tests[number], p_adjusted=p, fired=fired, shares=shares)
    return tests
