"""How wrong a permutation estimate is: the standard error of attributions, from the walks that were made anyway.

The estimate is φ̂ = (1/n) Σ_b g_b over *all* n background rows, g_b being the mean of b's walk pairs. What varies is
only which orders were walked: Var φ̂ = (1/n²) Σ_b Var(g_b | b). The spread of g_b over the rows is far larger, since
rows differ: taken for the error it is several times too wide. Two estimates of the right thing:

*Within* rows, where a row has two pairs or more: their sample variance. Unbiased, yet heavy-tailed: of a feature that
acts in one walk out of fifty it sees nothing or too much.

*Matched* rows, where it has one: for each row b its nearest other row m(b), and (g_b − g_m(b))² / 2. With independent
orders E (g_b − g_m)² = Var g_b + Var g_m + (μ_b − μ_m)², so it never understates in the mean, and the better the
match the less it overstates. Rows are matched by what is known without any walk's noise: b's value of the feature
itself and f(b); matching by g itself, the noisy result, would state less than the truth (a test shows it). This is the
collapsed-strata estimate of Cochran 1977 (Sampling Techniques, section 5A.12) with the nearest-neighbour pairing of
Abadie & Imbens 2006 (Econometrica 74, section 4).

Both are mixed by their degrees of freedom (Satterthwaite 1946): many active rows, and the within estimate speaks;
few, and the matched one does. Last, a feature no walk has seen to act gets a little of the others' variance, for what
has not been seen in n walks may still be there. `tests/bench/explainers` measures how often twice the error holds.

Called by `methods.permutation_shap`.
"""

from typing import Final

import numpy as np

from explainers.coding import Array

MATCHED_WEIGHT: Final = 5.0  # degrees of freedom the matched estimate counts for
UNSEEN_WEIGHT: Final = 0.02  # background rows that the mean feature's variance counts for


def standard_error(pairs: Array, background: Array, start: Array, x: Array) -> Array:
    """The standard error of `pairs.mean(axis=(0, 1))`, for every background row walked equally often.

    pairs (k, n, features, outputs): contributions of each pair; background (n, features); start (n, outputs) = f(b);
    x (features,) the explained row. Returns (features, outputs).
    """
    k, n = pairs.shape[:2]
    contributions = pairs.mean(axis=0)
    matched = matched_variance(contributions, background, start)
    if k > 1:
        within, freedom = within_variance(pairs)
        variance = (freedom * within + MATCHED_WEIGHT * matched) / (freedom + MATCHED_WEIGHT)
    else:
        variance = matched
    moved = ~_same(background, x).all(axis=0)
    if moved.any():
        pool = variance[moved].mean(axis=0)
        unseen = (n * variance + UNSEEN_WEIGHT * pool) / (n + UNSEEN_WEIGHT)
        variance = np.where(moved[:, None], unseen, variance)
    error: Array = np.sqrt(variance)
    return error


def sampled_error(contributions: Array) -> Array:
    """The standard error where only some background rows, drawn at random, were walked: that of a sample mean.

    contributions (n, features, outputs), n ≥ 2; returns (features, outputs).
    """
    n = contributions.shape[0]
    error: Array = contributions.std(axis=0, ddof=1) / np.sqrt(n)
    return error


def within_variance(pairs: Array) -> tuple[Array, Array]:
    """Variance of the mean from each row's own pairs, and its degrees of freedom; both (features, outputs)."""
    k, n = pairs.shape[:2]
    variances = pairs.var(axis=0, ddof=1) / k
    total, squares = variances.sum(axis=0), (variances**2).sum(axis=0)
    # E s⁴ = σ⁴ (1 + 2/(k − 1)) for normal g, so the squares overstate Σ σ⁴ by that factor.
    squares = squares / (1 + 2 / (k - 1))
    freedom = np.divide((k - 1) * total**2, squares, out=np.zeros_like(total), where=squares > 0)
    return total / n**2, freedom


def matched_variance(contributions: Array, background: Array, start: Array) -> Array:
    """Variance of the mean from rows matched with their nearest; (features, outputs)."""
    n, features, outputs = contributions.shape
    if n == 1:
        return np.full((features, outputs), np.inf)
    variance = np.empty((features, outputs))
    answers = [_distance(start[:, output]) for output in range(outputs)]
    for feature in range(features):
        values = _distance(background[:, feature])
        for output in range(outputs):
            distance = values + answers[output]
            np.fill_diagonal(distance, np.inf)
            mine = contributions[:, feature, output]
            variance[feature, output] = ((mine - mine[distance.argmin(axis=1)]) ** 2).sum() / 2
    return variance / n**2


def _distance(values: Array) -> Array:
    """(n, n): how far apart two rows are in the order of their values, equal values counted once, from 0 to 1."""
    distinct, rank = np.unique(values, return_inverse=True)
    scaled = rank.reshape(-1) / max(1, len(distinct) - 1)
    return np.abs(scaled[:, None] - scaled[None, :])


def _same(background: Array, x: Array) -> Array:
    same: Array = (background == x) | (np.isnan(background) & np.isnan(x))
    return same
