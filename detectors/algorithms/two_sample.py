"""Two windows of one model against each other, canary against stable, with no reference between them.

Kolmogorov-Smirnov's two-sample test on frozen bins for ranges (Smirnov's limit: rows m·n/(m + n)), Pearson's
chi-square test of homogeneity for levels, those expecting fewer than five rows in either window pooled (Cochran 1954).
Both take rows / deff independent rows, the design effect being that of the reference.

>>> import numpy as np
>>> from detectors.bins import QuantileBins
>>> from detectors.columns import ColumnReference
>>> bins = QuantileBins(np.array([0.0]))
>>> column = ColumnReference("x", "feature", bins, np.array([5000, 5000, 0]), 1.0, 1.0, gamma=0.01)
>>> name, p, effect, least = test(column, np.array([400, 600, 0]), np.array([4900, 5100, 0]), alpha=1e-4)
>>> f"{name}: D = {effect:.2f}, p = {p:.1e}; seen from {least:.2f}"
'ks_two_sample: D = 0.09, p = 7.3e-07; seen from 0.07'
"""

from typing import Final

import numpy as np
from scipy import stats

from detectors.bins import Counts
from detectors.columns import ColumnReference

EXPECTED: Final = 5.0  # rows
NAMES: Final = {"numeric": "ks_two_sample", "categorical": "chi_square_two_sample"}


def test(column: ColumnReference, here: Counts, there: Counts, alpha: float) -> tuple[str, float, float, float]:
    """Statistic, p-value, effect (D or total variation) and the effect from which p ≤ alpha, of two (bins,) counts."""
    name = NAMES[column.kind]
    p, effect, least = (_ks if column.kind == "numeric" else _chi_square)(column, here, there, alpha)
    return name, p, effect, min(least, 1.0)


def _ks(column: ColumnReference, here: Counts, there: Counts, alpha: float) -> tuple[float, float, float]:
    m, n = int(here[:-1].sum()), int(there[:-1].sum())
    if not m or not n:
        return 1.0, 0.0, 1.0
    effect = float(np.abs(np.cumsum(here[:-1]) / m - np.cumsum(there[:-1]) / n).max())
    root = np.sqrt(m * n / (m + n) / column.deff)
    return float(stats.kstwobign.sf(root * effect)), effect, float(stats.kstwobign.isf(alpha) / root)


def _chi_square(column: ColumnReference, here: Counts, there: Counts, alpha: float) -> tuple[float, float, float]:
    table = np.array([here, there], np.float64)
    rows = table.sum(1, keepdims=True)
    if not rows.all():
        return 1.0, 0.0, 1.0
    expected = rows * table.sum(0) / table.sum()
    rare = expected.min(0) < EXPECTED
    if rare.any():
        table = np.hstack((table[:, ~rare], table[:, rare].sum(1, keepdims=True)))
        expected = rows * table.sum(0) / table.sum()
    shares = table / rows
    effect, df = 0.5 * float(np.abs(shares[0] - shares[1]).sum()), table.shape[1] - 1
    if df < 1:
        return 1.0, effect, 1.0
    held = expected[0] > 0
    pearson = float(((table - expected)[:, held] ** 2 / expected[:, held]).sum()) / column.deff
    # (sum |p - q|)² ≤ sum (p - q)² / r for shares r of both together (Cauchy-Schwarz), which X² is m·n/(m + n) times.
    together = float(rows[0, 0] * rows[1, 0] / rows.sum())
    least = 0.5 * float(np.sqrt(stats.chi2.isf(alpha, df) * column.deff / together))
    return float(stats.chi2.sf(pearson, df)), effect, least
