"""Binomial tests of the rates of nulls, unseen values and values out of range, against the reference's plus a point.

Null hypothesis: the rate is at most the reference's upper confidence bound (Clopper and Pearson 1934, at `gamma`)
plus `TOLERANCE`. Levels the reference saw once stand in for those it did not see (Good 1953), as its own rate of
unseen values is zero whatever it missed. Both binomials take rows / deff independent rows; the incomplete beta
function gives their tails for fractions too. One-sided: fewer nulls than before are no fault (a categorical column
shows them in chi-square).

>>> import numpy as np
>>> from detectors.bins import QuantileBins
>>> from detectors.columns import ColumnReference
>>> bins = QuantileBins(np.array([0.0]))
>>> reference = ColumnReference("x", "feature", bins, np.array([4975, 4975, 50]), 1.0, 1.0, gamma=0.01)
>>> p, effect = test_nulls([reference], [np.array([450, 450, 100])])  # 0.5 % then, 10 % now
>>> f"{effect[0]:+.3f}, p = {p[0]:.0e}"
'+0.095, p = 1e-44'
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from detectors.bins import Counts
from detectors.columns import NULL, UNSEEN, ColumnReference

TOLERANCE: Final = 0.01  # one point
# What is counted: the bins it lies in, the outermost ranges being those out of range.
WHERE: Final[Mapping[str, tuple[int, ...]]] = {"nulls": (NULL,), "unseen": (UNSEEN,), "outside": (0, UNSEEN)}


def _deff(references: Sequence[ColumnReference], what: str) -> NDArray[np.float64]:
    return np.array([one.null_deff if what == "nulls" else one.deff for one in references])


def _counted(counts: Sequence[Counts], what: str) -> NDArray[np.float64]:
    where = list(WHERE[what])
    return np.array([float(seen[where].sum()) for seen in counts])


def _bound(references: Sequence[ColumnReference], what: str) -> NDArray[np.float64]:
    """(columns,) the highest rate that is still no fault."""
    deff = _deff(references, what)
    once = [int((one.counts[:UNSEEN] == 1).sum()) if what == "unseen" else 0 for one in references]
    rows = np.array([one.rows for one in references]) / deff
    hits = (_counted([one.counts for one in references], what) + once) / deff
    gamma = np.array([one.gamma for one in references])
    upper = special.betaincinv(hits + 1.0, np.maximum(rows - hits, 1e-9), 1.0 - gamma)
    bound: NDArray[np.float64] = np.minimum(upper + TOLERANCE, 1.0)
    return bound


def tail(hits: NDArray[np.float64], rows: NDArray[np.float64], bound: NDArray[np.float64]) -> NDArray[np.float64]:
    """(columns,) the chance of so many hits or more at the bound; rows may be fractions."""
    chance = special.betainc(np.maximum(hits, 1e-9), np.maximum(rows - hits, 0.0) + 1.0, bound)
    found: NDArray[np.float64] = np.where(hits > 0, chance, 1.0)
    return found


def _then(references: Sequence[ColumnReference], what: str) -> NDArray[np.float64]:
    rows = np.array([max(one.rows, 1) for one in references])
    shares: NDArray[np.float64] = _counted([one.counts for one in references], what) / rows
    return shares


def test(
    references: Sequence[ColumnReference], counts: Sequence[Counts], *, what: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The p and (rate now - rate then) of what is counted in each column, both (columns,)."""
    deff = _deff(references, what)
    rows, hits = np.array([float(seen.sum()) for seen in counts]), _counted(counts, what)
    p = tail(hits / deff, rows / deff, _bound(references, what))
    return p, hits / np.maximum(rows, 1.0) - _then(references, what)


def visible(
    references: Sequence[ColumnReference], counts: Sequence[Counts], alpha: NDArray[np.float64], *, what: str
) -> NDArray[np.float64]:
    """The smallest rise of the rate with p ≤ alpha in windows of this size; 1 where none is."""
    rows = np.array([float(seen.sum()) for seen in counts]) / _deff(references, what)
    least = least_rate(rows, _bound(references, what), alpha)
    return np.where(least > 1.0, 1.0, least - _then(references, what))


def least_rate(
    rows: NDArray[np.float64], bound: NDArray[np.float64], alpha: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(columns,) the smallest rate in so many rows whose tail is alpha or less; above 1 where none is."""
    whole = np.maximum(np.floor(rows), 1.0)
    rate: NDArray[np.float64] = (stats.binom.isf(alpha, whole, bound) + 1.0) / whole
    return rate


test_nulls, visible_nulls = partial(test, what="nulls"), partial(visible, what="nulls")
test_unseen, visible_unseen = partial(test, what="unseen"), partial(visible, what="unseen")
test_outside, visible_outside = partial(test, what="outside"), partial(visible, what="outside")
