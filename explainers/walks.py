"""Permutation walks: from a background row to the explained one, a feature at a time. Pure numpy, no model.

For a background row b and an order of the features, the walk's rows take the explained row's values one feature after
the other; each step's change in the output is that feature's contribution. Averaged over all orders this is the
Shapley value of the game v_b(S) = f(x_S, b_rest); averaged over b, the interventional one (Janzing et al. 2020). An
order and its reverse are walked as a pair: antithetic, so that interactions of two features cancel exactly (Mitchell
et al. 2022, "Sampling permutations for Shapley value estimation", section 4.1). Ends of a walk are f(b) and f(x),
known to all.

Called by `methods.permutation_shap`.
"""

from math import comb

import numpy as np

from explainers.coding import Array


def orders(random: np.random.Generator, walks: int, features: int) -> Array:
    """(walks, features) int: independent uniform orders."""
    return random.permuted(np.tile(np.arange(features), (walks, 1)), axis=1)


def pair_rows(x: Array, background: Array, order: Array) -> Array:
    """The inner rows of a walk and its reverse for each background row.

    x (features,), background (n, features), order (n, features); returns (n, 2, features - 1, features).
    """
    n, features = order.shape
    rank = np.argsort(order, axis=1)
    steps = np.arange(1, features)[:, None]
    taken = np.stack([rank[:, None, :] < steps, (features - 1 - rank)[:, None, :] < steps], axis=1)
    return np.where(taken, x, background.reshape(n, 1, 1, features))


def pair_contributions(inner: Array, start: Array, end: Array, order: Array) -> Array:
    """Contributions of each feature, walk and reverse averaged.

    inner (n, 2, features - 1, outputs), start (n, outputs) = f(b), end (outputs,) = f(x), order (n, features);
    returns (n, features, outputs).
    """
    n, outputs = start.shape
    first = np.broadcast_to(start[:, None, None, :], (n, 2, 1, outputs))
    last = np.broadcast_to(end, (n, 2, 1, outputs))
    steps = np.diff(np.concatenate([first, inner, last], axis=2), axis=2)
    both = np.stack([order, order[:, ::-1]], axis=1)
    contributions = np.empty_like(steps)
    np.put_along_axis(contributions, np.broadcast_to(both[..., None], steps.shape), steps, axis=2)
    mean: Array = contributions.mean(axis=1)
    return mean


def coalitions(features: int) -> Array:
    """(2 ** features - 2, features) bool: every subset but the empty and the full one."""
    number = np.arange(1, 2**features - 1)
    taken: Array = (number[:, None] >> np.arange(features) & 1).astype(np.bool_)
    return taken


def all_rows(x: Array, background: Array) -> Array:
    """The rows of every coalition: (n, 2 ** features - 2, features)."""
    return np.where(coalitions(len(x))[None], x, background[:, None, :])


def exact_contributions(inner: Array, start: Array, end: Array, features: int) -> Array:
    """The Shapley values of each background row's game, by Shapley's formula over all coalitions.

    inner (n, 2 ** features - 2, outputs); returns (n, features, outputs).
    """
    n, outputs = start.shape
    values = np.concatenate([start[:, None, :], inner, np.broadcast_to(end, (n, 1, outputs))], axis=1)
    number = np.arange(2**features)
    size = (number[:, None] >> np.arange(features) & 1).sum(axis=1)
    weights = np.array([1 / (features * comb(features - 1, s)) for s in range(features)])
    contributions = np.empty((n, features, outputs))
    for feature in range(features):
        without = number[(number >> feature & 1) == 0]
        gain = values[:, without | 1 << feature] - values[:, without]
        contributions[:, feature] = np.einsum("s,nso->no", weights[size[without]], gain)
    return contributions
