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
    p ≤ alpha in windows of that size; all (columns,) float64. `applies`: whether to a column. `quality`: it belongs to
    the family of data quality, and its tolerance is in the null hypothesis; else to its column's family, and its effect
    must also reach `Settings.min_effect`.
    """

    applies: Callable[[ColumnReference], bool]
    test: Test
    visible: Visible
    quality: bool = True


def _ordered(column: ColumnReference) -> bool:
    return column.kind == "numeric" and not column.blind


def _levelled(column: ColumnReference) -> bool:
    return column.kind == "categorical" and not column.blind


ALGORITHMS: Final[Mapping[str, Algorithm]] = {
    "ks": Algorithm(_ordered, ks.test, ks.visible, quality=False),
    "chi_square": Algorithm(_levelled, chi_square.test, chi_square.visible, quality=False),
    "unseen_rate": Algorithm(lambda column: column.kind == "categorical", rate.test_unseen, rate.visible_unseen),
    "null_rate": Algorithm(lambda column: column.rows > 0, rate.test_nulls, rate.visible_nulls),
    "range_rate": Algorithm(lambda column: column.limited, rate.test_outside, rate.visible_outside),
}
