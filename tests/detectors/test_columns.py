import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from detectors.bins import LOW_CARDINALITY, MAX_BINS, MAX_LEVELS, QuantileBins, fit_bins, quantile_bins, text_levels
from detectors.columns import ColumnReference, fit_column, settle
from detectors.design_effect import BLOCKS, Excess, design_effect, excess, growth, shuffles
from servelens.contract.errors import PayloadError

NUMBERS = hnp.arrays(
    np.float64,
    st.integers(1, 300),
    elements=st.one_of(
        st.sampled_from([0.0, 1.0, -1.0, 0.1, 1e308, -1e308, 5e-324, math.inf, -math.inf, math.nan]),
        st.floats(width=64),
    ),
)


def fit(values, feature_type="numeric", gamma=0.01):
    return settle([fit_column("x", "feature", feature_type, values, gamma=gamma, orders=shuffles(len(values), 0))])[0]


def together(columns):
    """The design effects of columns that are settled together, as those of one profile are."""
    orders = shuffles(len(columns[0]), 0)
    fitted = [fit_column("x", "feature", "numeric", values, gamma=0.01, orders=orders) for values in columns]
    return [column.deff for column in settle(fitted)]


def correlated(rng, rows, rho, length=100):
    """Normal rows whose blocks of `length` share a part of variance `rho`."""
    shared = np.repeat(rng.normal(size=rows // length + 1), length)[:rows]
    return math.sqrt(rho) * shared + math.sqrt(1 - rho) * rng.normal(size=rows)


def test_continuous_values_fall_into_64_bins_of_equal_counts():
    column = fit(np.random.default_rng(0).normal(size=6400))
    assert column.bins.size == MAX_BINS + 3
    assert column.counts.tolist() == [0, *[100] * MAX_BINS, 0, 0]  # below, in range, above, null


def test_edges_lie_halfway_between_the_quantile_and_the_next_value():
    values = np.arange(640.0)
    assert quantile_bins(values).edges[1:-1].tolist() == [10 * k - 0.5 for k in range(1, 64)]


def test_the_outermost_edges_are_a_tenth_of_the_span_beyond_the_reference():
    bins = quantile_bins(np.arange(641.0))
    assert bins.limited
    assert (bins.edges[0], bins.edges[-1]) == (-64.0, 704.0)
    column = fit(np.arange(641.0))
    counts = column.count(np.array([-64.1, -63.9, 703.9, 704.1]))
    assert (counts[0], counts[-2]) == (1, 1)
    assert column.limited


def test_where_no_number_lies_beyond_there_are_no_limits():
    assert not quantile_bins(np.array([-1.7976931348623157e308, 1.7976931348623157e308])).limited


@given(NUMBERS)
@example(np.array([np.finfo(np.float64).max]))
@settings(max_examples=60, deadline=None)
def test_every_value_has_one_bin_and_the_counts_agree_with_a_search_by_hand(values):
    bins = quantile_bins(values[np.isfinite(values)])
    assert len(bins.edges) <= MAX_BINS + 1
    assert np.all(np.diff(bins.edges) > 0)
    by_hand = [
        sum(1 for edge in bins.edges if edge < value) if math.isfinite(value) else bins.size - 1 for value in values
    ]
    assert bins.index(values).tolist() == by_hand


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200), st.integers(0, 200))
@settings(max_examples=60, deadline=None)
def test_counting_two_parts_and_adding_is_counting_the_whole(values, cut):
    column = fit(np.random.default_rng(1).normal(size=500) * 1e5)
    array = np.array(values)
    parts = column.count(array[:cut]) + column.count(array[cut:])
    assert parts.tolist() == column.count(array).tolist()
    assert parts.dtype == np.int64


def test_an_atom_has_a_bin_of_its_own():
    values = np.concatenate((np.zeros(500), np.random.default_rng(2).exponential(size=500)))
    column = fit(values)
    zero = column.bins.index(np.array([0.0]))[0]
    assert column.counts[zero] == 500
    assert column.bins.index(np.array([-0.5]))[0] == zero - 1


def test_a_constant_shows_a_move_to_either_side():
    column = fit(np.full(200, 3.0))
    assert column.bins.index(np.array([2.9, 3.0, 3.1])).tolist() == [1, 2, 3]
    assert column.bins.index(np.array([2.6, 3.4])).tolist() == [0, 4]  # out of range


def test_values_rounded_to_float32_stay_in_their_bins():
    values = np.round(np.random.default_rng(3).gamma(2.0, size=5000), 2)
    column = fit(values)
    assert column.count(values.astype(np.float32).astype(np.float64)).tolist() == column.counts.tolist()


def test_nan_and_infinities_count_as_null():
    column = fit(np.arange(200.0))
    assert column.count(np.array([math.nan, math.inf, -math.inf, 5.0]))[-1] == 3


def test_a_column_of_nulls_is_counted_all_the_same():
    column = fit(np.full(200, math.nan))
    assert column.counts.tolist() == [0, 200]
    assert (column.low, column.high, column.null_rate) == (None, None, 1.0)


@pytest.mark.parametrize(("distinct", "kind"), [(LOW_CARDINALITY, "categorical"), (LOW_CARDINALITY + 1, "numeric")])
def test_integers_are_counted_by_value_up_to_twenty_values(distinct, kind):
    values = np.arange(400.0) % distinct
    assert fit_bins(values, "integer").kind == kind
    assert fit_bins(values, "numeric").kind == "numeric"


def test_levels_of_an_integer_column_end_in_unseen_and_null():
    column = fit(np.repeat([1.0, 2.0, 4.0], 50), "integer")
    assert column.count(np.array([1.0, 2.0, 2.0, 3.0, 4.0, 5.0, 0.0, math.nan])).tolist() == [1, 2, 1, 3, 1]


def test_text_levels_end_in_unseen_and_null():
    values = np.array(["b", "a", None, "b"] * 50, object)
    column = fit(values, "categorical")
    assert column.counts.tolist() == [50, 100, 0, 50]
    assert column.count(np.array(["a", "B", None, "", "b"], object)).tolist() == [1, 1, 2, 1]
    assert [column.bins.label(number) for number in range(4)] == ["a", "b", "unseen", "null"]


def test_only_the_most_frequent_levels_are_kept_and_the_others_are_unseen():
    names = [f"id{at:03}" for at in range(MAX_LEVELS + 10)]
    values = np.array(names + names[10:], object)
    assert text_levels(values).levels == tuple(names[10:])
    assert fit(values, "categorical").counts[-2] == 10


def test_text_for_numbers_is_refused_by_name():
    column = fit(np.arange(200.0))
    with pytest.raises(PayloadError, match=r"x: .*object"):
        column.count(np.array(["1"], object))


def test_a_range_reads_as_a_range():
    bins = QuantileBins(np.array([1.5, 2.25]))
    assert [bins.label(number) for number in range(4)] == ["≤ 1.5", "(1.5, 2.25]", "> 2.25", "null"]


def test_radius_is_the_dvoretzky_kiefer_wolfowitz_bound_of_the_independent_rows():
    column = ColumnReference("x", "feature", QuantileBins(np.array([0.0])), np.array([600, 400, 100]), 2.0, 1.0, 0.01)
    assert column.radius == pytest.approx(math.sqrt(math.log(200) / (2 * 500)), rel=1e-12)


def test_noncentrality_is_the_chi_square_quantile_over_the_independent_rows():
    column = ColumnReference("x", "feature", QuantileBins(np.array([0.0])), np.array([600, 300, 100]), 2.0, 1.0, 0.01)
    assert column.noncentrality(3) == pytest.approx(stats.chi2.isf(0.01, 3) / 500, rel=1e-12)


def test_the_radius_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(4)
    missed = 0
    for _ in range(300):
        column = fit(rng.random(400), gamma=0.2)
        missed += np.abs(column.cumulative[:-1] - column.bins.edges.clip(0, 1)).max() > column.radius
    assert missed <= 0.2 * 300


def test_independent_rows_have_a_design_effect_near_one():
    rng = np.random.default_rng(5)
    effects = [fit(rng.normal(size=4000)).deff for _ in range(20)]
    assert min(effects) >= 1.0
    assert np.median(effects) < 1.4


@pytest.mark.parametrize("rho", [0.1, 0.3])
def test_the_design_effect_of_block_correlation_is_found(rho):
    """At the median the indicators correlate by 2/π asin(rho), and 100 rows a block make 1 + 99 times that."""
    rng = np.random.default_rng(6)
    truth = 1 + 99 * 2 / math.pi * math.asin(rho)
    effects = together([correlated(rng, 10_000, rho) for _ in range(12)])
    assert truth < np.median(effects) < 2 * truth


def test_the_design_effect_of_correlated_levels_is_found():
    rng = np.random.default_rng(7)
    labels = np.array(["a", "b", "c", "d"], object)
    effects = []
    for _ in range(12):
        quarter = (stats.norm.cdf(correlated(rng, 10_000, 0.3)) * 4).astype(int)
        effects.append(fit(labels[quarter], "categorical").deff)
    assert 15 < np.median(effects) < 60


def test_bursts_of_nulls_have_a_design_effect_of_their_own():
    values = np.random.default_rng(8).normal(size=10_000)
    values[2000:2500] = math.nan
    column = fit(values)
    assert column.null_deff > 100
    assert column.deff < 2


def test_a_whole_block_of_one_level_is_the_block_length():
    """One block in twenty differs entirely: Pearson's statistic per degree of freedom is the block's rows."""
    numbers = np.repeat((np.arange(BLOCKS) == 3).astype(np.intp), 50)
    found = excess(numbers, 4, "categorical", shuffles(len(numbers), 0))
    assert found.telling
    assert found.by_blocks[0] == pytest.approx(1000 / 19 - 1, rel=0.05)
    assert design_effect(found) == pytest.approx(1 + 1.63 * (1000 / 19 - 1), rel=0.05)


@pytest.mark.parametrize(("length", "least"), [(500, 20), (2000, 60)])
def test_correlation_longer_than_a_twentieth_is_found_by_all_columns_together(length, least):
    """Blocks of 500 and 2000 rows that share a tenth: 1 + 0.064 (rows - 1); a column alone says it badly."""
    rng = np.random.default_rng(9)
    effects = together([correlated(rng, 10_000, 0.1, length) for _ in range(12)])
    assert least < np.median(effects) < 10 * least


def test_growth_is_that_of_the_columns_that_show_anything():
    steady, growing = Excess((4.0, 4.0, 4.0), telling=True), Excess((4.0, 8.0, 12.0), telling=True)
    quiet = Excess((0.0, 90.0, 90.0), telling=False)
    assert growth([steady, steady]) == 1.0
    assert growth([steady, growing, quiet]) == pytest.approx(2.0)
    assert growth([quiet]) == growth([]) == 1.0


def test_a_column_whose_rows_are_too_few_independent_ones_is_blind():
    assert not fit(np.random.default_rng(10).normal(size=2000)).blind
    walk = np.repeat(np.random.default_rng(0).normal(size=4), 500)
    assert fit(walk).blind


# -- seasons --------------------------------------------------------------------------------------------------


def seasonal(rng, rows=14_400):
    """Numbers that are higher by day, hour after hour, with rows' hours of the day."""
    hours = np.arange(rows) // 20 % 24
    return rng.normal(size=rows) + 2.0 * np.isin(hours, range(8, 20)), hours.astype(np.intp)


def fit_seasons(values, hours, count=24):
    fitted = fit_column("x", "feature", "numeric", values, gamma=0.01, orders=shuffles(len(values), 0, hours, count))
    return settle([fitted])[0]


def test_the_season_is_no_correlation_once_it_is_known():
    values, hours = seasonal(np.random.default_rng(11))
    few = values[:2400], hours[:2400]
    assert fit(few[0]).deff > 20  # five days in blocks of six hours: day and night are clusters
    assert fit_seasons(*few).deff < 4


def test_a_window_of_the_night_is_compared_with_nights():
    values, hours = seasonal(np.random.default_rng(12))
    column = fit_seasons(values, hours)
    assert column.seasonal.shape == (24, column.bins.size)
    assert column.seasonal.sum(0).tolist() == column.counts.tolist()
    night = column.mixed({2: 50, 3: 50})
    own = np.isin(hours, (2, 3))
    assert night.rows == pytest.approx(own.sum(), abs=2)
    assert night.cumulative == pytest.approx(np.cumsum(column.count(values[own]))[:-1] / own.sum(), abs=0.01)


def test_an_uneven_mixture_weighs_less_than_its_rows():
    values, hours = seasonal(np.random.default_rng(13))
    column = fit_seasons(values, hours)
    assert column.mixed({2: 990, 12: 10}).rows == pytest.approx(600 / (0.99**2 + 0.01**2), rel=0.02)


def test_a_season_the_reference_lacks_judges_nothing():
    values, hours = seasonal(np.random.default_rng(14), rows=480)
    column = fit_seasons(values, hours, count=168)
    mixed = column.mixed({100: 10})
    assert mixed.rows == 0
    assert mixed.blind
