"""The stated error against the true one, known here since the walks can be made anew as often as wanted."""

import numpy as np
import pytest

from explainers import walks
from explainers.standard_error import matched_variance, sampled_error, standard_error, within_variance

N, FEATURES, REPEATS = 60, 6, 300


def model(rows: np.ndarray) -> np.ndarray:
    """Steps and products, as trees make them."""
    return (
        np.where(rows[..., 0] > 0, rows[..., 1] * rows[..., 2], 1.0)
        + np.where((rows[..., 3] > 0.5) & (rows[..., 0] < 1) & (rows[..., 4] > 0), 3.0, 0.0)
    )[..., None]


@pytest.fixture(scope="module")
def setting() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return np.array([0.7, 1.2, -0.8, 0.9, 0.4, 0.2]), random.normal(size=(N, FEATURES))


def repeated(setting: tuple[np.ndarray, np.ndarray], pairs: int) -> np.ndarray:
    """(repeats, pairs, rows, features, 1): contributions, walked anew each time."""
    x, background = setting
    random = np.random.default_rng(1)
    found = []
    for _ in range(REPEATS * pairs):
        order = walks.orders(random, N, FEATURES)
        inner = model(walks.pair_rows(x, background, order))
        found.append(walks.pair_contributions(inner, model(background), model(x), order))
    return np.array(found).reshape(REPEATS, pairs, N, FEATURES, 1)


@pytest.mark.parametrize("pairs", [1, 3])
def test_twice_the_error_covers_the_truth_and_is_not_far_too_wide(
    setting: tuple[np.ndarray, np.ndarray], pairs: int
) -> None:
    x, background = setting
    runs = repeated(setting, pairs)
    truth = walks.exact_contributions(model(walks.all_rows(x, background)), model(background), model(x), FEATURES).mean(
        axis=0
    )
    hits, wide = [], []
    active = np.abs(truth[:, 0]) > 1e-9
    for run in runs:
        error = standard_error(run, background, model(background), x)
        hits.append(np.abs(run.mean(axis=(0, 1)) - truth)[active] <= 2 * error[active])
        wide.append(error[active, 0])
    true_error = runs.mean(axis=(1, 2))[..., 0].std(axis=0)[active]
    assert np.mean(hits) >= 0.9
    ratio = np.sqrt(np.mean(np.square(wide), axis=0)) / true_error
    naive = np.array([sampled_error(run.mean(axis=0))[active, 0] for run in runs])
    assert (ratio >= 0.9).all()
    assert np.median(ratio) < 0.6 * np.median(np.sqrt(np.mean(np.square(naive), axis=0)) / true_error)


def test_the_matched_variance_never_understates_in_the_mean(setting: tuple[np.ndarray, np.ndarray]) -> None:
    _, background = setting
    runs = repeated(setting, 1)[:, 0]
    true_variance = runs.mean(axis=1).var(axis=0, ddof=1)
    stated = np.mean([matched_variance(run, background, model(background)) for run in runs], axis=0)
    assert (stated >= 0.85 * true_variance).all()  # 300 repeats know the truth to some 8 %


def test_matching_by_the_noisy_result_itself_would_understate(setting: tuple[np.ndarray, np.ndarray]) -> None:
    runs = repeated(setting, 1)[:, 0]
    true_variance = runs.mean(axis=1).var(axis=0, ddof=1)[:, 0]
    cheating = np.mean(
        [matched_variance(run[:, [f]], run[:, f], np.zeros((N, 1)))[0, 0] for run in runs[:50] for f in [1]]
    )
    assert cheating < 0.6 * true_variance[1]


def test_the_within_variance_is_unbiased(setting: tuple[np.ndarray, np.ndarray]) -> None:
    runs = repeated(setting, 2)
    true_variance = runs.mean(axis=(1, 2)).var(axis=0, ddof=1)[:, 0]
    stated = np.mean([within_variance(run)[0][:, 0] for run in runs], axis=0)
    acting = true_variance > 1e-12
    assert np.allclose(stated[acting], true_variance[acting], rtol=0.25)


def test_degrees_of_freedom_tell_many_active_rows_from_one() -> None:
    random = np.random.default_rng(0)
    pairs = np.zeros((2, 50, 2, 1))
    pairs[:, :, 0] = random.normal(size=(2, 50, 1))
    pairs[:, 0, 1] = [[1.0], [-1.0]]
    _, freedom = within_variance(pairs)
    assert freedom[0, 0] > 15
    assert freedom[1, 0] <= 3.01


def test_only_what_never_differs_from_the_row_is_certain() -> None:
    """A feature no walk saw to act may still act; one that is equal in every row cannot."""
    background = np.array([[1.0, 0.0, 5.0], [2.0, 1.0, 5.0], [3.0, 2.0, 5.0], [4.0, 3.0, 5.0]])
    contributions = np.zeros((1, 4, 3, 1))
    contributions[0, :, 0, 0] = [1.0, -1.0, 2.0, 0.5]
    error = standard_error(contributions, background, np.zeros((4, 1)), np.array([9.0, 9.0, 5.0]))
    assert error[0, 0] > error[1, 0] > 0
    assert error[2, 0] == 0


def test_no_spread_no_error() -> None:
    contributions = np.ones((2, 4, 3, 1))
    background = np.arange(12.0).reshape(4, 3)
    assert (standard_error(contributions, background, np.zeros((4, 1)), np.zeros(3)) == 0).all()
