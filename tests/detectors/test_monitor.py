import dataclasses
import json
import time

import drift_samples
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.monitor import DRIFT, OK, RECOVERING, SUSPECT, ColumnState, MonitorState, advance, step
from detectors.pane import Pane, total
from detectors.statistics import ColumnTest, Settings
from servelens.contract.errors import StateError
from servelens.contract.table import Table

SETTINGS = Settings()
PROFILE = drift_samples.profile_of()


def run(profile, windows, state=None, how=SETTINGS):
    """The results of the windows and the state behind them."""
    state = state or MonitorState.start(profile)
    results = []
    for window in windows:
        state, result = step(state, window, profile, how)
        results.append(result)
    return results, state


def fired(scale_1, *larger):
    """Tests of one column at scale 1 (None: not tested) and at the larger scales, by whether they fired."""
    test = ColumnTest("x", "ks", 0.1, 0.0, 0.0, 0.001, 0.05, fired=False)
    tests = {} if scale_1 is None else {1: dataclasses.replace(test, fired=scale_1)}
    return tests | {4 ** (at + 1): dataclasses.replace(test, fired=hit) for at, hit in enumerate(larger)}


@pytest.mark.parametrize(
    ("hits", "states"),
    [
        ([0, 0], [OK, OK]),
        ([1, 0], [SUSPECT, OK]),
        ([1, 1], [SUSPECT, DRIFT]),
        ([1, 0, 1, 0], [SUSPECT, OK, SUSPECT, OK]),
        (
            [1, 1, 0, 0, 0, 0, 0, 0, 1],
            [SUSPECT, DRIFT, DRIFT, DRIFT, RECOVERING, RECOVERING, RECOVERING, OK, SUSPECT],
        ),
        ([1, 1, 0, 0, 1, 0, 0, 0], [SUSPECT, DRIFT, DRIFT, DRIFT, DRIFT, DRIFT, DRIFT, RECOVERING]),
        ([1, 1, 0, 0, 0, 1, 1], [SUSPECT, DRIFT, DRIFT, DRIFT, RECOVERING, RECOVERING, DRIFT]),
        ([1, 1, 0, 0, 0, 0, 1, 0, 0, 0], [SUSPECT, DRIFT, DRIFT, DRIFT, *[RECOVERING] * 5, OK]),
    ],
)
def test_scale_one_needs_two_hits_and_drift_calms_after_three_quiet_windows(hits, states):
    state, seen = ColumnState(), []
    for number, hit in enumerate(hits):
        state = advance(state, fired(bool(hit)), number, SETTINGS)
        seen.append(state.state)
    assert seen == states


def test_a_larger_scale_alarms_at_once():
    assert advance(ColumnState(), fired(False, True), 9, SETTINGS).state == DRIFT
    assert advance(ColumnState(), fired(None, False, True), 9, SETTINGS).state == DRIFT


def test_twenty_healthy_columns_give_no_alarm_in_three_hundred_windows_and_drift_is_then_named_within_four():
    """0 false alarms and a shift of 0.25 standard deviations in one of twenty columns, of four references each."""
    for seed in range(4):
        profile = drift_samples.profile_of(seed)
        rng = np.random.default_rng([seed, 1])
        quiet, state = run(profile, [drift_samples.window(profile, rng) for _ in range(80)])
        assert [column for result in quiet for column in result.columns if column.state == DRIFT] == []
        drifted, _ = run(profile, [drift_samples.window(profile, rng, n4=0.25) for _ in range(4)], state)
        assert {column.column for result in drifted for column in result.columns if column.state == DRIFT} == {"n4"}


def test_drift_of_a_prediction_is_found_and_named():
    rng = np.random.default_rng(1)
    results, _ = run(PROFILE, [drift_samples.window(PROFILE, rng, score=0.25) for _ in range(4)])
    assert [column.column for column in results[-1].columns if column.state == DRIFT] == ["score"]


def test_a_slow_drift_below_one_windows_sight_is_found_by_the_larger_scales():
    rng = np.random.default_rng(2)
    results, _ = run(PROFILE, [drift_samples.window(PROFILE, rng, n8=0.2) for _ in range(16)])
    column = next(column for column in results[-1].columns if column.column == "n8")
    assert column.state == DRIFT
    assert column.scale > 1
    assert column.test is not None
    assert column.test.effect == pytest.approx(0.0797, abs=0.02)  # 2 Φ(0.1) - 1


def test_scales_are_tested_in_their_turn():
    rng = np.random.default_rng(3)
    results, _ = run(PROFILE, [drift_samples.window(PROFILE, rng, rows=200) for _ in range(24)])
    assert [at + 1 for at, result in enumerate(results) if 4 in result.tested] == list(range(4, 25, 2))
    assert [at + 1 for at, result in enumerate(results) if 16 in result.tested] == [16, 24]
    assert all(1 in result.tested for result in results)


def test_a_larger_scale_tests_the_sum_of_the_last_windows():
    rng = np.random.default_rng(4)
    windows = [drift_samples.window(PROFILE, rng, slot=slot, n0=0.1 * slot) for slot in range(6)]
    _, state = run(PROFILE, windows)
    alone, _ = run(PROFILE, [total(windows[2:6])])
    by_scale = {test.column: test.effect for test in state.last[4]}
    assert by_scale == {column.column: column.test.effect for column in alone[0].columns}


def test_the_ring_holds_sixteen_windows():
    rng = np.random.default_rng(5)
    windows = [drift_samples.window(PROFILE, rng, rows=120, slot=slot) for slot in range(20)]
    _, state = run(PROFILE, windows)
    assert [pane.slots[0] for pane in state.ring] == list(range(4, 20))
    assert state.windows == 20


def test_windows_of_too_few_rows_change_no_column_but_count_together():
    rng = np.random.default_rng(6)
    small = [drift_samples.window(PROFILE, rng, rows=99, n0=3.0) for _ in range(4)]
    results, state = run(PROFILE, small[:3])
    assert [result.tested for result in results] == [(), (), ()]
    assert all(column.test is None and column.state == OK for result in results for column in result.columns)
    results, _ = run(PROFILE, small[3:], state)
    assert results[0].tested == (4,)
    assert [column.column for column in results[0].columns if column.state == DRIFT] == ["n0"]


def test_too_few_rows_neither_confirm_nor_calm():
    rng = np.random.default_rng(7)
    loud = [drift_samples.window(PROFILE, rng, n0=2.0) for _ in range(3)]
    none = Pane.empty(PROFILE, PROFILE.identity, (0, 1))
    results, _ = run(PROFILE, [loud[0], none, loud[1], none, loud[2]])
    states = [result.columns[0].state for result in results]
    assert states == [SUSPECT, SUSPECT, DRIFT, DRIFT, DRIFT]


@pytest.mark.parametrize("onset", range(2, 12))
def test_a_drift_that_is_over_is_not_found_a_second_time_by_the_merged_windows(onset):
    rng = np.random.default_rng(8)
    windows = [drift_samples.window(PROFILE, rng, n0=2.0 if onset <= at < onset + 3 else 0.0) for at in range(40)]
    results, _ = run(PROFILE, windows)
    changes = [
        (at, column.column, column.state)
        for at, one in enumerate(results)
        for column in one.transitions
        if column.state != SUSPECT
    ]
    assert [change[1:] for change in changes] == [("n0", DRIFT), ("n0", RECOVERING), ("n0", OK)]
    assert changes[0][0] in (onset, onset + 1)


def test_transitions_are_the_columns_whose_state_changed():
    rng = np.random.default_rng(11)
    results, _ = run(PROFILE, [drift_samples.window(PROFILE, rng, n0=2.0, score=2.0) for _ in range(3)])
    changes = [[(one.column, one.previous, one.state) for one in result.transitions] for result in results]
    assert changes == [
        [("n0", OK, SUSPECT), ("score", OK, SUSPECT)],
        [("n0", SUSPECT, DRIFT), ("score", SUSPECT, DRIFT)],
        [],
    ]


def stored(state, profile):
    return MonitorState.from_mapping(profile, json.loads(json.dumps(state.to_mapping(profile))))


def test_state_survives_json_and_goes_on_bit_for_bit():
    rng = np.random.default_rng(9)
    windows = [drift_samples.window(PROFILE, rng, rows=300, n0=0.5 * (at > 8)) for at in range(20)]
    straight, end = run(PROFILE, windows)
    state = MonitorState.start(PROFILE)
    for window, expected in zip(windows, straight, strict=True):
        state, result = step(stored(state, PROFILE), window, PROFILE, SETTINGS)
        assert result.columns == expected.columns
        assert result.tested == expected.tested
    assert json.dumps(state.to_mapping(PROFILE)) == json.dumps(end.to_mapping(PROFILE))


NARROW = drift_samples.one_column(np.random.default_rng(0).normal(size=500), gamma_columns=2)


@given(st.lists(st.lists(st.integers(0, 60), min_size=5, max_size=5), min_size=1, max_size=8))
@settings(max_examples=25, deadline=None)
def test_windows_summed_from_any_panes_give_the_same_state(drawn):
    def panes(sizes, slot):
        rng = np.random.default_rng(sizes)
        return [Pane.of(NARROW, Table.of({"x": rng.normal(at, 1, size)}), slot=slot) for at, size in enumerate(sizes)]

    forward = [total(panes(sizes, slot)) for slot, sizes in enumerate(drawn)]
    backward = [total(panes(sizes, slot)[::-1]) for slot, sizes in enumerate(drawn)]
    states = [run(NARROW, windows)[1].to_mapping(NARROW) for windows in (forward, backward)]
    assert json.dumps(states[0]) == json.dumps(states[1])


def test_state_of_another_profile_or_without_a_field_is_refused():
    state = run(PROFILE, [drift_samples.window(PROFILE, np.random.default_rng(0))])[1].to_mapping(PROFILE)
    with pytest.raises(StateError, match="another profile"):
        MonitorState.from_mapping(NARROW, state)
    for name in ("windows", "columns", "ring", "last"):
        with pytest.raises(StateError, match="incomplete"):
            MonitorState.from_mapping(PROFILE, {key: value for key, value in state.items() if key != name})


def test_a_window_of_twenty_columns_is_judged_in_milliseconds():
    rng = np.random.default_rng(10)
    windows = [drift_samples.window(PROFILE, rng) for _ in range(24)]
    state, seconds = MonitorState.start(PROFILE), []
    for window in windows:
        start = time.perf_counter()
        state, _ = step(state, window, PROFILE, SETTINGS)
        seconds.append(time.perf_counter() - start)
    assert np.median(seconds) < 0.02  # 3 to 5 ms on an idle core
