"""The tests by name, one file a method. Each takes all its columns at once: p-values cost a call, not a column.

Called by `statistics` only. A further method is a file here and a row in `ALGORITHMS`; the first row of a kind is the
one a column is described by when nothing fires.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from detectors.algorithms import chi_square, ks, rate
from detectors.bins import Counts
from detectors.columns import ColumnReference

Floats: TypeAlias = NDArray[np.float64]  # (columns,)
Test: TypeAlias = Callable[[Sequence[ColumnReference], Sequence[Counts]], tuple[Floats, Floats]]
Visible: TypeAlias = Callable[[Sequence[ColumnReference], Sequence[Counts], Floats], Floats]


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A test and its sight.

    `test(references, counts)` gives p and effect, `visible(references, counts, alpha)` the smallest effect with
    p ≤ alpha in windows of that size; all (columns,) float64. `kinds`: the columns it applies to. `gated`: whether its
    effect must also reach `Settings.min_effect`; a test that has its tolerance in the null hypothesis needs no gate.
    """

    kinds: tuple[str, ...]
    test: Test
    visible: Visible
    gated: bool


ALGORITHMS: Final[Mapping[str, Algorithm]] = {
    "ks": Algorithm(("numeric",), ks.test, ks.visible, gated=True),
    "chi_square": Algorithm(("categorical",), chi_square.test, chi_square.visible, gated=True),
    "unseen_rate": Algorithm(("categorical",), rate.test_unseen, rate.visible_unseen, gated=False),
    "null_rate": Algorithm(("numeric", "categorical"), rate.test_nulls, rate.visible_nulls, gated=False),
}
