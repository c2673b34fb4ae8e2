import dataclasses
import json
import math

import drift_samples
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from detectors.algorithms import ALGORITHMS
from detectors.pane import Pane
from detectors.profile import Choices, build_profile
from detectors.statistics import ColumnTest, Settings, alpha_for, examine, holm
from servelens.contract.table import Table

SETTINGS = Settings()
PROFILE = drift_samples.profile_of()
HYPOTHESES = {"feature": 20, "prediction": 1}
LEVEL = SETTINGS.alpha / 3


def answers(pane, settings=SETTINGS, profile=PROFILE):
    return {test.column: test for test in examine(profile, pane, settings)}


def moved(pane, column, share):
    """The pane with a share of the column's rows moved from its lower bins to the bin of the highest values."""
    counts = pane.counts.copy()
    part = counts[PROFILE.slices[PROFILE.position[column]]]
    taken = np.floor(part * share).astype(int)
    part -= taken
    part[PROFILE.columns[PROFILE.position[column]].bins.size - 3] += taken.sum()
    return dataclasses.replace(pane, counts=counts)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
@settings(deadline=None)
def test_holm_rejects_what_the_step_down_procedure_rejects(p):
    array = np.array(p)
    adjusted = holm(array)
    for alpha in (0.001, 0.05, 0.3):
        rejected = np.zeros(len(p), bool)
        for step, at in enumerate(np.argsort(array, kind="stable")):
            if array[at] * (len(p) - step) > alpha:
                break
            rejected[at] = True
        assert (adjusted <= alpha).tolist() == rejected.tolist()


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_every_column_has_one_answer_described_by_the_first_test_of_its_kind():
    found = answers(drift_samples.window(PROFILE, np.random.default_rng(1)))
    assert list(found) == [*(column.name for column in PROFILE.columns), "(requests)"]
    assert {test.statistic for test in found.values()} == {"ks", "chi_square", "type_rate"}
    assert not any(test.fired or test.shares for test in found.values())
    assert {test.alpha for test in found.values()} == {LEVEL}


def test_numbers_are_those_of_the_algorithm_corrected_within_the_family():
    pane = drift_samples.window(PROFILE, np.random.default_rng(2), score=0.5, n4=0.5)
    found = answers(pane)
    p, effect = ALGORITHMS["ks"].test([PROFILE.columns[-1]], [pane.column("score")])
    assert (found["score"].p, found["score"].effect) == (p[0], effect[0])
    assert found["score"].p_adjusted == pytest.approx(p[0] * HYPOTHESES["prediction"])
    assert found["n4"].p_adjusted == pytest.approx(found["n4"].p * HYPOTHESES["feature"])
    assert found["n4"].fired
    assert found["score"].fired


def test_features_never_change_what_predictions_say():
    plain = drift_samples.window(PROFILE, np.random.default_rng(3), score=0.2)
    drifted = plain
    for column in drift_samples.NUMERIC:
        drifted = moved(drifted, column, 0.5)
    assert answers(plain)["score"] == answers(drifted)["score"]
    assert sum(test.fired for test in answers(drifted).values()) >= 14


def test_a_sure_but_small_effect_is_no_drift():
    big = drift_samples.window(PROFILE, np.random.default_rng(4), rows=100_000, n0=0.15)
    found = answers(big, dataclasses.replace(SETTINGS, min_effect=0.1))["n0"]
    assert found.p_adjusted < 1e-9
    assert 0.05 < found.effect < 0.1
    assert not found.fired
    assert found.min_detectable == 0.1
    assert answers(big)["n0"].fired


def test_the_smallest_visible_effect_is_at_the_first_step_of_holm():
    pane = drift_samples.window(PROFILE, np.random.default_rng(5), rows=400)
    column = PROFILE.columns[0]
    c = math.sqrt(-math.log(LEVEL / HYPOTHESES["feature"] / 2) / 2)  # Kolmogorov's tail is 2 exp(-2 c²)
    assert answers(pane)["n0"].min_detectable == pytest.approx(column.radius + c * math.sqrt(column.deff / 400), 1e-6)


@pytest.mark.parametrize("column", ["n0", "c2"])
def test_a_shift_of_the_smallest_visible_size_fires_and_a_smaller_one_does_not(column):
    pane = Pane(PROFILE, PROFILE.identity, (0, 1), PROFILE_COUNTS.copy(), rows=PROFILE.rows)
    least = answers(pane)[column].min_detectable
    assert answers(shifted(pane, column, least * 1.02))[column].fired
    assert not answers(shifted(pane, column, 0.045))[column].fired


PROFILE_COUNTS = np.concatenate([column.counts for column in PROFILE.columns])


def shifted(pane, column, share):
    """A share of all rows goes from the first bins to the last that is not unseen or null."""
    counts = pane.counts.copy()
    reference = PROFILE.columns[PROFILE.position[column]]
    part = counts[PROFILE.slices[PROFILE.position[column]]]
    left = round(share * pane.rows)
    part[reference.bins.size - 3] += left  # behind it out of range and null, or unseen and null
    for at in range(reference.bins.size):
        taken = min(int(part[at]), left)
        part[at] -= taken
        left -= taken
    return dataclasses.replace(pane, counts=counts)


def test_more_nulls_fire_by_their_rate_where_the_distance_is_blind():
    table = drift_samples.draw(np.random.default_rng(6), 1000)
    table.columns["n2"][:60] = math.nan
    found = answers(Pane.of(PROFILE, table))["n2"]
    assert (found.statistic, found.fired) == ("null_rate", True)
    assert found.effect == pytest.approx(0.06)
    assert [(share.part, share.then, share.now) for share in found.shares] == [("null", 0.0, 0.06)]


def test_new_levels_fire_by_their_rate():
    table = drift_samples.draw(np.random.default_rng(7), 1000)
    table.columns["c4"][:90] = "a new one"
    found = answers(Pane.of(PROFILE, table))["c4"]
    assert (found.statistic, found.fired) == ("unseen_rate", True)
    assert [(share.part, share.now) for share in found.shares] == [("unseen", 0.09)]


def test_shares_name_the_ranges_and_levels_that_moved_most():
    table = drift_samples.draw(np.random.default_rng(8), 2000, {"n0": 0.8})
    table.columns["c1"][:400] = "level 2"
    found = answers(Pane.of(PROFILE, table))
    shares = found["n0"].shares
    assert len(shares) == 3
    assert shares[0].part.startswith("(1.1")  # the highest eighth, up to the end of the range
    assert shares[0].then == pytest.approx(0.125, abs=0.01)
    assert shares[0].now == pytest.approx(stats.norm.sf(stats.norm.isf(0.125) - 0.8), abs=0.03)
    assert found["c1"].shares[0].part == "level 2"
    assert found["c1"].shares[0].now == pytest.approx(0.2 + 0.8 / 3, abs=0.03)


def test_a_test_survives_json_bit_for_bit():
    table = drift_samples.draw(np.random.default_rng(9), 1000, {"n0": 1.0})
    for test in answers(Pane.of(PROFILE, table)).values():
        assert ColumnTest.from_mapping(json.loads(json.dumps(test.to_mapping()))) == test


def test_a_window_without_rows_is_judged_quiet():
    found = answers(Pane.empty(PROFILE, PROFILE.identity, (0, 1)))
    assert {test.p for test in found.values()} == {1.0}
    assert not any(test.fired for test in found.values())
    assert {test.min_detectable for test in found.values()} == {1.0}


def test_a_profile_of_features_alone_is_examined():
    profile = drift_samples.one_column(np.random.default_rng(0).normal(size=500))
    window = Pane.of(profile, Table.of({"x": np.random.default_rng(1).normal(3, 1, 500)}))
    assert answers(window, profile=profile)["x"].fired


def test_the_level_for_one_false_alarm_a_year_is_the_union_bound():
    """Three families, a test at scale 1 in each window, at scale 4 in every second, at scale 16 in every eighth."""
    level = alpha_for(1.0, shortest_window=900)
    assert level / 3 * 35_040 * 3 * (1 + 1 / 2 + 1 / 8) == pytest.approx(1.0)
    assert alpha_for(2.0) == pytest.approx(2 * alpha_for(1.0))
    assert alpha_for(1.0, shortest_window=60) == pytest.approx(level / 15)
    assert alpha_for(1e9) == 0.05


def test_values_out_of_range_fire_by_their_rate_where_the_distance_is_too_small():
    table = drift_samples.draw(np.random.default_rng(10), 1000)
    table.columns["n0"][:45] = 99.0
    found = answers(Pane.of(PROFILE, table))["n0"]
    assert (found.statistic, found.fired) == ("range_rate", True)
    assert found.effect == pytest.approx(0.045)
    assert found.shares[0].now == 0.045


@pytest.mark.parametrize(("counter", "statistic"), [("wrong_type", "type_rate"), ("wrong_schema", "schema_rate")])
def test_requests_of_another_schema_fire_by_their_rate(counter, statistic):
    pane = drift_samples.window(PROFILE, np.random.default_rng(11))
    assert not answers(dataclasses.replace(pane, counters={counter: 8}))["(requests)"].fired
    found = answers(dataclasses.replace(pane, counters={counter: 60}))["(requests)"]
    assert (found.statistic, found.fired) == (statistic, True)
    assert found.effect == pytest.approx(60 / 1060)
    assert found.min_detectable < found.effect


def test_requests_that_were_cut_off_are_no_schema_fault():
    pane = drift_samples.window(PROFILE, np.random.default_rng(12))
    assert not answers(dataclasses.replace(pane, counters={"unreadable": 500}))["(requests)"].fired


def test_a_column_too_correlated_is_judged_by_its_quality_alone():
    walk = np.repeat(np.random.default_rng(0).normal(size=4), 250)
    profile = drift_samples.one_column(walk)
    shifted_rows = Table.of({"x": np.random.default_rng(1).normal(0.5, 0.2, 500)})
    assert answers(Pane.of(profile, shifted_rows), profile=profile)["x"].statistic == "null_rate"
    absent = Table.of({"x": np.full(500, math.nan)})
    assert answers(Pane.of(profile, absent), profile=profile)["x"].fired


def test_a_window_is_compared_with_the_season_it_is_of():
    """By night the values are lower; without its season every night is a drift, with it none."""
    rng, rows = np.random.default_rng(13), 24_000
    hours = np.arange(rows) // 100 % 24
    values = rng.normal(size=rows) + 3.0 * np.isin(hours, range(8, 20))
    model = drift_samples.one_column(values).model
    table, night = Table.of({"x": values}), Table.of({"x": rng.normal(size=1000)})
    plain = build_profile(table, model, {})
    by_hour = build_profile(table, model, {}, Choices(season="hour-of-day", season_of_row=hours))
    assert not plain.season
    assert not answers(Pane.of(by_hour, night, counters={"season_2": 1000}), profile=by_hour)["x"].fired
    assert answers(Pane.of(by_hour, night, counters={"season_12": 1000}), profile=by_hour)["x"].fired


def test_every_setting_is_part_of_the_version():
    versions = {SETTINGS.version}
    for change in (
        {"alpha": 0.01},
        {"scales": (1, 4)},
        {"min_effect": 0.1},
        {"confirm": 3},
        {"clear": 2},
        {"n_target": 500},
        {"n_min": 50},
    ):
        versions.add(dataclasses.replace(SETTINGS, **change).version)
    assert len(versions) == 1 + len(dataclasses.fields(SETTINGS))
    assert SETTINGS.version == Settings().version
