import dataclasses
import json
import math

import drift_samples
import numpy as np
import pytest

from detectors.monitor import MonitorState, step
from detectors.pane import Pane
from detectors.statistics import Settings
from detectors.verdict import Circumstances, summary, verdict, verdict_id
from servelens.contract.identity import ModelIdentity, digest
from servelens.contract.table import Table

SETTINGS = Settings()
PROFILE = drift_samples.profile_of()
ABOUT = Circumstances(group="risk", first=100, last=105, slot_seconds=10, late_rows=3, coverage=0.97)


def judge(*windows, profile=PROFILE, about=ABOUT):
    """The verdict on the last of the windows."""
    state = MonitorState.start(profile)
    for window in windows:
        state, result = step(state, window, profile, SETTINGS)
    return verdict(result, about, profile, SETTINGS)


def quiet(rows=1000, seed=0):
    return drift_samples.window(PROFILE, np.random.default_rng(seed), rows=rows)


def loud(seed=0, **shifts):
    return drift_samples.window(PROFILE, np.random.default_rng(seed), **shifts)


def test_a_verdict_says_which_model_slots_and_rows_it_is_about():
    said = judge(dataclasses.replace(quiet(), counters={"undecodable": 2}))
    stated = {name: said[name] for name in said if name not in ("id", "columns", "statistics")}
    assert stated == {
        "kind": "window",
        "group": "risk",
        "namespace": "shop",
        "inferenceservice": "churn",
        "component": "predictor",
        "modelname": "churn",
        "revision": "00001",
        "slots": [100, 105],
        "slotseconds": 10,
        "rows": 1000,
        "exchanges": 1000,
        "late": 3,
        "counters": {"undecodable": 2},
        "coverage": 0.97,
        "gaps": [],
        "timesource": "broker",
        "pointers": {},
        "segment": "",
        "alpha": SETTINGS.alpha,
        "profile": PROFILE.digest,
        "scales": [1],
        "state": "ok",
        "transitions": [],
    }
    assert said["statistics"] == SETTINGS.version


def test_unknown_coverage_gaps_and_the_source_of_time_are_said():
    about = dataclasses.replace(ABOUT, coverage=None, gaps=[{"partition": 1, "records": 5}], timesource="producer")
    said = judge(quiet(), about=about)
    assert (said["coverage"], said["timesource"]) == ("unknown", "producer")
    assert said["gaps"] == [{"partition": 1, "records": 5}]


def test_a_column_that_drifted_has_its_numbers_and_where_the_rows_went():
    said = judge(loud(1, n0=1.0), loud(2, n0=1.0))
    column = said["columns"][0]
    assert {name: column[name] for name in ("column", "kind", "family", "state", "statistic", "scale", "fired")} == {
        "column": "n0",
        "kind": "numeric",
        "family": "feature",
        "state": "drift",
        "statistic": "ks",
        "scale": 1,
        "fired": True,
    }
    assert column["effect"] == pytest.approx(0.383, abs=0.04)  # 2 Φ(1/2) - 1
    assert column["alpha"] == SETTINGS.alpha / 3
    assert column["p"] <= column["p_adjusted"] < 1e-9
    assert column["deff"] == PROFILE.columns[0].deff
    assert 0.05 < column["min_detectable"] < 0.2
    assert column["shares"][0]["part"].startswith("(1.")
    assert said["state"] == "drift"
    assert said["transitions"] == [{"column": "n0", "from": "suspect", "to": "drift"}]


def test_the_worst_column_gives_the_state():
    assert judge(loud(1, n0=1.0))["state"] == "suspect"
    assert judge(loud(1, n0=1.0), loud(2, n0=1.0, n4=1.0))["state"] == "drift"
    assert judge(loud(1, n0=9.0), loud(2, n0=9.0), *(quiet(9000, seed) for seed in range(3, 30)))["state"] == "ok"


@pytest.mark.parametrize(
    "windows",
    [
        [quiet()],
        [Pane.empty(PROFILE, PROFILE.identity, (0, 1))],
        [loud(1, n0=1.0, score=3.0), loud(2, n0=1.0, score=3.0)],
        [Pane.of(PROFILE, Table.of({"n0": np.full(500, math.inf)}))],
    ],
    ids=["quiet", "empty", "drift", "infinite"],
)
def test_a_verdict_is_json_without_nan_or_infinities(windows):
    said = judge(*windows)
    assert json.loads(json.dumps(said, allow_nan=False)) == said


def test_the_same_windows_give_the_same_verdict():
    assert json.dumps(judge(loud(1, n0=1.0), quiet())) == json.dumps(judge(loud(1, n0=1.0), quiet()))


IDENTITY = ModelIdentity("a", "b", "predictor", "c", "d")
PARTS = ("group", 10, IDENTITY, "window", (1, 2), "abc", "1-x")


def test_the_id_is_the_digest_of_its_parts():
    expected = digest("group", 10, "a", "b", "predictor", "c", "d", "window", 1, 2, "abc", "1-x")
    assert verdict_id(*PARTS) == expected
    assert len(expected) == 64


def test_every_part_changes_the_id():
    others = ("groups", 20, ModelIdentity("a", "b", "predictor", "cd", ""), "label", (1, 3), "abd", "2-x")
    ids = {verdict_id(*PARTS)}
    for at, other in enumerate(others):
        ids.add(verdict_id(*PARTS[:at], other, *PARTS[at + 1 :]))  # type: ignore[arg-type]
    assert len(ids) == 1 + len(PARTS)


def test_a_verdict_carries_the_id_of_its_own_parts():
    said = judge(quiet())
    parts = (ABOUT.group, 10, PROFILE.identity, "window", (100, 105), PROFILE.digest, SETTINGS.version)
    assert said["id"] == verdict_id(*parts)


def test_the_sentence_of_a_quiet_window_says_what_would_have_shown():
    said = judge(quiet())
    largest = max(column["min_detectable"] for column in said["columns"])
    assert summary(said) == (
        f"No drift in 21 columns over 1000 rows; any difference above {largest:.2f} would have shown."
    )


def test_the_sentence_of_drift_names_the_column_its_effect_and_how_sure():
    words = summary(judge(loud(1, n0=1.0), loud(2, n0=1.0)))
    assert words.startswith("Drift in 1 of 21 columns: n0 (KS distance 0.3")
    assert words.endswith(").")
    assert "in this window, p " in words


def test_the_sentence_of_much_drift_names_the_three_largest():
    shifts = {"n0": 1.0, "n4": 3.0, "n8": 2.0, "n12": 0.8}
    words = summary(judge(loud(1, **shifts), loud(2, **shifts)))
    assert words.startswith("Drift in 4 of 21 columns: n4 ")
    assert words.endswith("and 1 more.")
    assert words.index("n8") < words.index("n0")


def test_the_sentence_names_suspects():
    assert summary(judge(loud(1, n0=1.0))).endswith("Drift if the next window agrees: n0.")


def test_the_sentence_of_too_few_rows_says_so():
    assert summary(judge(quiet(rows=57))) == "Too few rows to judge: 57 in this window."


def test_the_sentence_says_which_columns_cannot_be_judged():
    """A reference whose rows all hang together can show nothing: it must say so instead of staying silent."""
    walk = np.repeat(np.random.default_rng(0).normal(size=4), 250)
    profile = drift_samples.one_column(walk, gamma_columns=2)
    table = Table.of({"x": np.random.default_rng(1).normal(size=200), "other0": np.zeros(200)})
    words = summary(judge(Pane.of(profile, table), profile=profile))
    assert words.endswith("would have shown. Reference too autocorrelated: x.")
