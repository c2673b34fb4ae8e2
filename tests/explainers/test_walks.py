"""Walks against Shapley's formula in its plainest form: a mean over every order."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explainers import walks


def game(rows: np.ndarray) -> np.ndarray:
    """(…, 2 outputs) of (…, features), with products of two and three features."""
    first = rows[..., 0] * rows[..., 1] + np.sin(rows[..., 2]) + rows.sum(-1) ** 2
    return np.stack([first, np.prod(rows, -1)], -1)


def plain(x: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(features, outputs): every order, one row after the other."""
    features = len(x)
    total = np.zeros((features, 2))
    for order in permutations(range(features)):
        row = b.copy()
        for feature in order:
            before = game(row)
            row[feature] = x[feature]
            total[feature] += game(row) - before
    return total / len(list(permutations(range(features))))


@pytest.mark.parametrize("features", [3, 4])
def test_all_coalitions_give_shapleys_values(features: int) -> None:
    random = np.random.default_rng(1)
    x, background = random.normal(size=features), random.normal(size=(5, features))
    inner = game(walks.all_rows(x, background))
    found = walks.exact_contributions(inner, game(background), game(x), features)
    assert np.allclose(found, [plain(x, b) for b in background])


def test_the_mean_over_all_orders_is_exact() -> None:
    random = np.random.default_rng(2)
    x, b = random.normal(size=3), random.normal(size=3)
    order = np.array(list(permutations(range(3))))
    background = np.tile(b, (6, 1))
    found = walks.pair_contributions(game(walks.pair_rows(x, background, order)), game(background), game(x), order)
    assert np.allclose(found.mean(axis=0), plain(x, b))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 7), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_every_walk_adds_up_to_prediction_less_start(features: int, n: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, background = random.normal(size=features), random.normal(size=(n, features))
    order = walks.orders(random, n, features)
    rows = walks.pair_rows(x, background, order)
    assert rows.shape == (n, 2, features - 1, features)
    wide = np.concatenate([rows, np.zeros((*rows.shape[:3], max(0, 3 - features)))], -1)
    start, end = (
        np.concatenate([one, np.zeros((*one.shape[:-1], max(0, 3 - features)))], -1) for one in (background, x)
    )
    found = walks.pair_contributions(game(wide), game(start), game(end), order)
    assert np.allclose(found.sum(axis=1), game(end) - game(start))


def test_a_pair_cancels_an_interaction_of_two_exactly() -> None:
    """Mitchell et al. 2022, section 4.1: the antithetic pair is exact for a game of order two."""
    random = np.random.default_rng(3)
    weights = random.normal(size=(6, 6))

    def quadratic(rows: np.ndarray) -> np.ndarray:
        return np.einsum("...i,ij,...j->...", rows, weights, rows)[..., None]

    x, background = random.normal(size=6), random.normal(size=(4, 6))
    order = walks.orders(random, 4, 6)
    one = walks.pair_contributions(
        quadratic(walks.pair_rows(x, background, order)), quadratic(background), quadratic(x), order
    )
    whole = walks.exact_contributions(quadratic(walks.all_rows(x, background)), quadratic(background), quadratic(x), 6)
    assert np.allclose(one, whole)


def test_the_walk_and_its_reverse_take_complements() -> None:
    order = np.array([[2, 0, 1]])
    rows = walks.pair_rows(np.ones(3), np.zeros((1, 3)), order)[0]
    assert rows[0].tolist() == [[0, 0, 1], [1, 0, 1]]
    assert rows[1].tolist() == [[0, 1, 0], [1, 1, 0]]


def test_coalitions_are_all_but_the_empty_and_the_full_one() -> None:
    found = walks.coalitions(3)
    assert found.shape == (6, 3)
    assert len({tuple(row) for row in found.tolist()}) == 6
    assert not found.all(axis=1).any()
    assert found.any(axis=1).all()
