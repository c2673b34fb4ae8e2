import doctest
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from detectors.algorithms import ALGORITHMS, chi_square, ks, rate
from detectors.bins import QuantileBins, TextLevels
from detectors.columns import ColumnReference

ALPHA = np.array([1e-5])


def numeric(counts, deff=1.0, null_deff=1.0, gamma=0.01):
    bins = QuantileBins(np.arange(len(counts) - 2, dtype=float))
    return ColumnReference("x", "feature", bins, np.array(counts), deff, null_deff, gamma)


def levels(counts, deff=1.0, null_deff=1.0, gamma=0.01):
    bins = TextLevels(tuple(f"{at:03}" for at in range(len(counts) - 2)))
    return ColumnReference("x", "feature", bins, np.array(counts), deff, null_deff, gamma)


@pytest.mark.parametrize("module", [ks, chi_square, rate])
def test_the_example_in_the_docstring_runs(module):
    assert doctest.testmod(module) == (0, 7)


def test_ks_is_the_two_sample_distance_of_scipy_when_every_value_is_a_bin():
    rng = np.random.default_rng(0)
    then, now = rng.integers(0, 20, 3000), rng.integers(0, 18, 500)
    reference = numeric([*np.bincount(then, minlength=20), 0])
    _, effect = ks.test([reference], [np.array([*np.bincount(now, minlength=20), 0])])
    assert effect[0] == pytest.approx(stats.ks_2samp(then, now).statistic, abs=1e-12)


def test_ks_p_is_kolmogorovs_limit_beyond_the_radius():
    reference, counts = numeric([5000, 5000, 0], deff=2.0), np.array([300, 500, 200])
    p, effect = ks.test([reference], [counts])
    assert effect[0] == pytest.approx(500 / 800 - 0.5, abs=1e-15)
    radius = math.sqrt(math.log(200) * 2 / (2 * 10_000))
    assert p[0] == pytest.approx(stats.kstwobign.sf(math.sqrt(800 / 2) * (0.125 - radius)), rel=1e-12)


def test_ks_leaves_nulls_out():
    reference = numeric([50, 50, 900])
    p, effect = ks.test([reference] * 2, [np.array([500, 500, 0]), np.array([0, 0, 1000])])
    assert p.tolist() == [1.0, 1.0]
    assert effect.tolist() == [0.0, 0.0]


def test_a_finite_reference_never_drifts_by_itself_however_long_the_window():
    """The window is the truth itself, at the edge of what this reference allows for."""
    reference = numeric([5050, 4950, 0])
    assert reference.radius > 0.005
    p, _ = ks.test([reference], [np.array([5 * 10**9, 5 * 10**9, 0])])
    assert p[0] == 1.0
    p, effect = chi_square.test([levels([5050, 4950, 0, 0])], [np.array([5 * 10**8, 5 * 10**8, 0, 0])])
    assert effect[0] == pytest.approx(0.005, abs=1e-4)
    assert p[0] > 0.5


def test_chi_square_is_pearsons_against_the_smoothed_reference():
    counts = np.array([260, 240, 300, 200, 0, 0])
    reference = levels([2500, 2500, 2500, 2500, 500, 500], deff=1.5)
    p, _ = chi_square.test([reference], [counts])
    share = (reference.counts + 0.5) / (11_000 + 3)
    pearson = stats.chisquare(counts, 1000 * share).statistic
    nc = 1000 * stats.chi2.isf(0.01, 5) / 11_000
    assert p[0] == pytest.approx(stats.ncx2.sf(pearson / 1.5, 5, nc), rel=1e-12)


def test_chi_square_pools_bins_expecting_fewer_than_five():
    reference = levels([9000, 900, 60, 40, 0, 0])  # of 100 rows 90, 9, 0.6, 0.4, 0, 0: the last four together hold 1
    p, effect = chi_square.test([reference], [np.array([80, 10, 4, 4, 2, 0])])
    expected = 100 * np.array([9000.5, 900.5 + 60.5 + 40.5 + 0.5 + 0.5]) / (10_000 + 3)
    pearson = stats.chisquare(np.array([80, 20]), expected).statistic
    assert p[0] == pytest.approx(stats.ncx2.sf(pearson, 1, 100 * stats.chi2.isf(0.01, 1) / 10_000), rel=1e-12)
    assert effect[0] == pytest.approx(abs(80 - expected[0]) / 100, rel=1e-12)


def test_one_unseen_value_in_a_thousand_is_no_drift():
    counts = np.array([500, 499, 1, 0])
    p, _ = chi_square.test([levels([5000, 5000, 0, 0])], [counts])
    unseen, _ = rate.test_unseen([levels([5000, 5000, 0, 0])], [counts])
    assert p[0] > 0.5
    assert unseen[0] > 0.5


def test_chi_square_of_one_level_or_of_no_rows_says_nothing():
    p, effect = chi_square.test(
        [levels([1000, 0, 0]), levels([500, 500, 0, 0])], [np.array([900, 100, 0]), np.array([0, 0, 0, 0])]
    )
    assert p == pytest.approx(1.0)
    assert effect == pytest.approx(0.0)


def test_rate_is_the_binomial_tail_above_the_bound_and_a_point():
    reference = numeric([4950, 4950, 100])
    p, effect = rate.test_nulls([reference], [np.array([480, 480, 40])])
    bound = stats.binomtest(100, 10_000).proportion_ci(0.98, method="exact").high + 0.01
    assert p[0] == pytest.approx(stats.binom.sf(39, 1000, bound), rel=1e-9)
    assert effect[0] == pytest.approx(0.03, abs=1e-12)


def test_rate_counts_correlated_rows_as_fewer():
    now = np.array([480, 480, 40])
    p, _ = rate.test_nulls([numeric([4950, 4950, 100], null_deff=4.0)], [now])
    bound = stats.beta.isf(0.01, 26, 2475) + 0.01
    assert p[0] == pytest.approx(stats.binom.sf(9, 250, bound), rel=1e-9)


@pytest.mark.parametrize("counts", [[500, 500, 0], [495, 495, 10], [490, 491, 19], [0, 0, 0]])
def test_a_rate_within_the_tolerance_is_no_fault(counts):
    p, _ = rate.test_nulls([numeric([4950, 4950, 100])], [np.array(counts)])
    assert p[0] > 0.3


def test_a_reference_of_nulls_only_cannot_have_more():
    p, effect = rate.test_nulls([numeric([0, 500])], [np.array([0, 100])])
    assert (p[0], effect[0]) == (1.0, 0.0)


def test_levels_seen_once_predict_unseen_ones():
    """Forty of two hundred rows held a level of their own: about as many will again."""
    many = levels([80, 80, *[1] * 40, 0, 0])
    few = levels([100, 100, 0, 0])
    p, effect = rate.test_unseen([many, few], [np.array([40, 40, *[0] * 40, 20, 0]), np.array([40, 40, 20, 0])])
    assert effect.tolist() == [0.2, 0.2]
    assert p[0] > 0.3
    assert p[1] < 1e-4


COUNTS = st.integers(2, 12).flatmap(lambda n: st.lists(st.integers(0, 4000), min_size=n, max_size=n))


@given(COUNTS.flatmap(lambda ref: st.tuples(st.just(ref), *[st.integers(0, 2000)] * len(ref))), st.floats(1, 30))
@settings(max_examples=150, deadline=None)
def test_any_counts_give_a_probability_and_an_effect(drawn, deff):
    reference, *counts = drawn
    for make, names in ((numeric, ("ks", "null_rate")), (levels, ("chi_square", "null_rate", "unseen_rate"))):
        column = make(reference, deff, deff)
        for name in names:
            p, effect = ALGORITHMS[name].test([column], [np.array(counts)])
            least = ALGORITHMS[name].visible([column], [np.array(counts)], ALPHA)
            assert 0 <= p[0] <= 1
            assert -1 <= effect[0] <= 1
            assert 0 <= least[0] <= 1


@pytest.mark.parametrize("rows", [200, 1000, 16_000])
def test_what_is_called_visible_is_just_what_is_seen(rows):
    """A window whose effect is the smallest visible one has p ≤ alpha, one a little below has not."""
    found = {}
    for name, column, at in (
        ("ks", numeric([25_000, 25_000, 0], deff=1.3), 0),
        ("chi_square", levels([25_000, 25_000, 0, 0], deff=1.3), 0),
        ("null_rate", numeric([24_000, 24_000, 2000]), -1),
    ):
        least = ALGORITHMS[name].visible([column], [np.round(column.counts * rows / 50_000).astype(int)], ALPHA)[0]
        found[name] = least
        for beyond, seen in ((2, True), (-2, False)):
            counts = np.round(column.counts * rows / 50_000).astype(int)
            moved = round(least * rows) + beyond
            counts[at] += moved
            counts[1 if at == 0 else 0] -= moved
            p, _ = ALGORITHMS[name].test([column], [counts])
            assert (p[0] <= ALPHA[0]) is np.bool_(seen), (name, beyond)
    assert found["ks"] > 0.007


@pytest.mark.parametrize("sizes", [(25_000,) * 2, (5000,) * 10, (100,) * 200])
def test_no_split_of_a_visible_total_variation_over_levels_is_missed(sizes):
    column = levels([*sizes, 0, 0])
    rows = 20_000
    plain = np.array([*(size * rows // sum(sizes) for size in sizes), 0, 0])
    least = chi_square.visible([column], [plain], ALPHA)[0]
    moved = math.ceil(least * rows) + len(sizes)
    for taking in {1, len(sizes) // 2}:
        counts = plain.copy()
        counts[:taking] -= moved // taking
        counts[taking : len(sizes)] += moved // (len(sizes) - taking)
        if counts.min() >= 0:
            p, _ = chi_square.test([column], [counts])
            assert p[0] <= ALPHA[0]


def test_null_windows_of_a_true_reference_keep_the_level():
    """With the truth as reference (radius and non-centrality near 0) p-values of null windows are conservative."""
    rng = np.random.default_rng(1)
    truth = np.full(20, 0.05)
    column = levels([*(truth * 2**40).astype(int), 0, 0])
    ordered = numeric([*(truth * 2**40).astype(int), 0])
    windows = rng.multinomial(1000, truth, size=2000)
    p_levels, _ = chi_square.test([column] * 2000, [np.array([*one, 0, 0]) for one in windows])
    p_ordered, _ = ks.test([ordered] * 2000, [np.array([*one, 0]) for one in windows])
    for p in (p_levels, p_ordered):
        assert (p <= 0.01).mean() <= 0.016
    assert (p_levels <= 0.05).mean() >= 0.035
