"""Pearson's chi-square of a window against the smoothed reference, with a non-central null.

A finite reference is not the truth: against it X² / deff follows a chi-square whose non-centrality is at most
m * `noncentrality` / deff. So the reference's own error never looks like drift, however many rows a window has (a
one-sample test as in Evidently 0.7 flags 71 % of healthy windows of 5000 rows against 1000).

Bins expecting fewer than `EXPECTED` rows in this window, or holding fewer of the reference, are pooled (Cochran 1954),
as one unseen value in a thousand would otherwise give p = 0; the unseen bin has its own test in `rate`. The effect is
the total variation over the same bins: the share of rows that moved from one to another.

>>> import numpy as np
>>> from detectors.bins import TextLevels
>>> from detectors.columns import ColumnReference
>>> bins = TextLevels(("no", "yes"))  # no, yes, unseen, null
>>> reference = ColumnReference("paid", "feature", bins, np.array([3000, 7000, 0, 0]), 1.0, 1.0, gamma=0.01)
>>> p, effect = test([reference], [np.array([400, 600, 0, 0])])
>>> f"TV = {effect[0]:.2f}, p = {p[0]:.1e}"
'TV = 0.10, p = 6.0e-10'
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from detectors.bins import Counts
from detectors.columns import ColumnReference

EXPECTED: Final = 5.0  # rows
NOUGHT: Final = 1e-6  # X² below which p is 1 to three digits, and scipy's non-central tail may overflow


def _pool(reference: ColumnReference, counts: Counts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(pooled bins,) expected and counted rows; which bins are pooled depends on the window's size, not its content."""
    smoothed = reference.counts + 0.5  # Jeffreys
    expected = smoothed * (counts.sum() / smoothed.sum())
    rare = (expected < EXPECTED) | (reference.counts < EXPECTED)
    if not rare.any():
        return expected, counts.astype(np.float64)
    kept_expected, kept = expected[~rare], counts[~rare].astype(np.float64)
    if len(kept) and min(expected[rare].sum(), reference.counts[rare].sum()) < EXPECTED:
        smallest = kept_expected.argmin()
        kept_expected[smallest] += expected[rare].sum()
        kept[smallest] += counts[rare].sum()
        return kept_expected, kept
    return np.append(kept_expected, expected[rare].sum()), np.append(kept, counts[rare].sum())


def _null(references: Sequence[ColumnReference], rows: Sequence[float], bins: Sequence[int]) -> NDArray[np.float64]:
    """(2, columns) degrees of freedom and non-centrality; one bin has nothing to test and is given one degree."""
    df = [max(size - 1, 1) for size in bins]
    terms = zip(references, rows, df, strict=True)
    return np.array([df, [m * one.noncentrality(free) / one.deff for one, m, free in terms]])


def test(
    references: Sequence[ColumnReference], counts: Sequence[Counts]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The p and total variation of each column, both (columns,); p = 1 for a window without rows or with one bin."""
    pooled = [_pool(one, seen) for one, seen in zip(references, counts, strict=True)]
    rows = [float(seen.sum()) for _, seen in pooled]
    pearson = [((seen - expected) ** 2 / np.maximum(expected, 1e-300)).sum() for expected, seen in pooled]
    scaled = np.array(pearson) / [one.deff for one in references]
    scaled[scaled < NOUGHT] = 0.0
    df, noncentrality = _null(references, rows, [len(seen) for _, seen in pooled])
    moved = [0.5 * np.abs(seen - expected).sum() for expected, seen in pooled]
    return stats.ncx2.sf(scaled, df, noncentrality), np.array(moved) / np.maximum(rows, 1.0)


def visible(
    references: Sequence[ColumnReference], counts: Sequence[Counts], alpha: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The total variation from which p ≤ alpha whatever bins it is spread over; 1 where there is none.

    Half the square root of X²(alpha) / m, as (sum |p - q|)² ≤ sum (p - q)² / q (Cauchy-Schwarz): a shift of rare bins
    shows earlier.
    """
    pooled = [_pool(one, seen) for one, seen in zip(references, counts, strict=True)]
    rows = np.array([float(seen.sum()) for _, seen in pooled])
    df, noncentrality = _null(references, rows.tolist(), [len(seen) for _, seen in pooled])
    critical = stats.ncx2.isf(alpha, df, noncentrality) * [one.deff for one in references]
    blind = np.array([len(seen) < 2 for _, seen in pooled])
    return np.where(blind, 1.0, np.minimum(0.5 * np.sqrt(critical / np.maximum(rows, 1.0)), 1.0))
