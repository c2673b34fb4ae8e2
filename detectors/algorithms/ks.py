"""Kolmogorov-Smirnov distance on frozen bins, conditional on the reference.

The largest difference D of the two cumulative curves at the bin edges. Under "the truth lies within `radius` of the
reference's curve" (Dvoretzky-Kiefer-Wolfowitz), D - radius is at most the one-sample KS statistic of the window, so

    p = P(K > sqrt(m / deff) * (D - radius)),   K Kolmogorov's limit (scipy.stats.kstwobign)

holds for any number of windows against one reference. Bins make it conservative. Nulls are left to `rate`.

>>> import numpy as np
>>> from detectors.bins import QuantileBins
>>> from detectors.columns import ColumnReference
>>> bins = QuantileBins(np.array([0.0]))  # (-inf, 0], (0, inf), null
>>> reference = ColumnReference("x", "feature", bins, np.array([5000, 5000, 0]), 1.0, 1.0, gamma=0.01)
>>> p, effect = test([reference], [np.array([400, 600, 0])])
>>> f"D = {effect[0]:.2f}, p = {p[0]:.1e}"
'D = 0.10, p = 1.6e-06'
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from detectors.bins import Counts
from detectors.columns import ColumnReference


def _independent(references: Sequence[ColumnReference], counts: Sequence[Counts]) -> NDArray[np.float64]:
    """(columns,) rows that are not null, as independent ones."""
    return np.array([seen[:-1].sum() / one.deff for one, seen in zip(references, counts, strict=True)])


def distance(reference: ColumnReference, counts: Counts) -> float:
    """D between a (bins,) window and its reference; 0 where either holds nothing but nulls."""
    rows = counts[:-1].sum()
    if not rows or not reference.cumulative[-1]:
        return 0.0
    return float(np.abs(np.cumsum(counts[:-1]) / rows - reference.cumulative).max())


def test(
    references: Sequence[ColumnReference], counts: Sequence[Counts]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The p and D of each column, both (columns,)."""
    effect = np.array([distance(one, seen) for one, seen in zip(references, counts, strict=True)])
    beyond = np.maximum(effect - [one.radius for one in references], 0.0)
    return stats.kstwobign.sf(np.sqrt(_independent(references, counts)) * beyond), effect


def visible(
    references: Sequence[ColumnReference], counts: Sequence[Counts], alpha: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The smallest D with p ≤ alpha in windows of this size: radius + K⁻¹(alpha) * sqrt(deff / m); 1 where none is."""
    rows = np.maximum(_independent(references, counts), np.finfo(float).tiny)
    radius = np.array([one.radius for one in references])
    least: NDArray[np.float64] = np.minimum(radius + stats.kstwobign.isf(alpha) / np.sqrt(rows), 1.0)
    return least
