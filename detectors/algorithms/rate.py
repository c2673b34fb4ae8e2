"""Binomial test of the rate of nulls, or of unseen values, against the reference's rate plus one point.

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

from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from detectors.bins import Counts
from detectors.columns import NULL, UNSEEN, ColumnReference

TOLERANCE: Final = 0.01  # one point


def _deff(references: Sequence[ColumnReference], at: int) -> NDArray[np.float64]:
    return np.array([one.null_deff if at == NULL else one.deff for one in references])


def _bound(references: Sequence[ColumnReference], at: int) -> NDArray[np.float64]:
    """(columns,) the highest rate that is still no fault."""
    deff = _deff(references, at)
    rows = np.array([one.rows for one in references]) / deff
    hits = np.array([_hits(one, at) for one in references]) / deff
    gamma = np.array([one.gamma for one in references])
    upper = special.betaincinv(hits + 1.0, np.maximum(rows - hits, 1e-9), 1.0 - gamma)
    bound: NDArray[np.float64] = np.minimum(upper + TOLERANCE, 1.0)
    return bound


def _hits(reference: ColumnReference, at: int) -> int:
    once = int((reference.counts[:UNSEEN] == 1).sum()) if at == UNSEEN else 0
    return int(reference.counts[at]) + once


def _then(references: Sequence[ColumnReference], at: int) -> NDArray[np.float64]:
    return np.array([one.counts[at] / max(one.rows, 1) for one in references])


def test(
    references: Sequence[ColumnReference], counts: Sequence[Counts], *, at: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The p and (rate now - rate then) of the bin `at` of each column, both (columns,)."""
    deff = _deff(references, at)
    rows = np.array([float(seen.sum()) for seen in counts])
    hits = np.array([float(seen[at]) for seen in counts])
    tail = special.betainc(np.maximum(hits, 1e-9) / deff, (rows - hits) / deff + 1.0, _bound(references, at))
    return np.where(hits > 0, tail, 1.0), hits / np.maximum(rows, 1.0) - _then(references, at)


def visible(
    references: Sequence[ColumnReference], counts: Sequence[Counts], alpha: NDArray[np.float64], *, at: int
) -> NDArray[np.float64]:
    """The smallest rise of the rate with p ≤ alpha in windows of this size; 1 where none is."""
    deff = _deff(references, at)
    rows = np.maximum(np.floor(np.array([float(seen.sum()) for seen in counts]) / deff), 1.0)
    hits = stats.binom.isf(alpha, rows, _bound(references, at)) + 1.0
    return np.where(hits > rows, 1.0, hits / rows - _then(references, at))


test_nulls, visible_nulls = partial(test, at=NULL), partial(visible, at=NULL)
test_unseen, visible_unseen = partial(test, at=UNSEEN), partial(visible, at=UNSEEN)
