"""Shapley values over real HTTP against exact ones: by all coalitions, and by shap's own for trees."""

from itertools import combinations
from math import factorial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shap
from explainers_parts import MODEL, ROW, ArtifactOf, House, background, house, risk
from model_server import matrix
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier

from explainers.methods.permutation_shap import plan_of
from servelens.contract.errors import TooLarge
from servelens.contract.schema import ModelSchema, parse_model
from servelens.contract.table import Table

FEATURES = ("age", "income", "visits", "member", "city")


def table_of(columns: dict[str, Any]) -> Table:
    return Table.of(
        {
            name: np.array(values, object) if name == "city" else np.asarray(values, float)
            for name, values in columns.items()
        }
    )


def exact(row: list[Any]) -> dict[str, float]:
    """Shapley's formula, in process, by the model's own function."""
    rows = background()
    n, count = len(rows["age"]), len(FEATURES)
    value = {}
    for size in range(count + 1):
        for some in combinations(range(count), size):
            mixed = {name: [row[at]] * n if at in some else rows[name] for at, name in enumerate(FEATURES)}
            value[some] = risk(table_of(mixed))[:, 1].mean()
    return {
        name: sum(
            factorial(len(s)) * factorial(count - len(s) - 1) / factorial(count)
            * (value[tuple(sorted((*s, at)))] - value[s])
            for s in value
            if at not in s
        )
        for at, name in enumerate(FEATURES)
    }  # fmt: skip


def explained(home: House, *rows: list[Any], **parameters: Any) -> list[dict[str, Any]]:
    answer = home.client.post("/v1/models/m:explain", json={"instances": list(rows), "parameters": parameters})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["explanations"]
    return found


def named(found: dict[str, Any], of: str) -> dict[str, float]:
    return {one["feature"]: one[of] for one in found["attributions"]["score"]}


@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_values_are_exact_where_all_coalitions_are_as_cheap(
    artifact: ArtifactOf, schema: ModelSchema, protocol: str
) -> None:
    with house(artifact(), schema, predictor_protocol=protocol) as home:
        (found,) = explained(home, ROW)
        assert found["error"]["exact"]
        assert named(found, "attribution") == pytest.approx(exact(ROW), abs=1e-9)
        assert set(named(found, "standard_error").values()) == {0.0}
        assert found["base"]["score"] + sum(named(found, "attribution").values()) == pytest.approx(
            found["prediction"]["score"]
        )
        assert found["error"]["additivity_gap"] < 1e-12


def test_an_unseen_category_and_null_are_explained(home: House) -> None:
    assert (
        home.client.post("/v1/models/m:explain", json={"instances": [[52.0, 18.5, 3, True, "Oslo"]]}).json()[
            "explanations"
        ][0]["row"]["city"]
        == "Oslo"
    )
    found = explained(home, [52.0, 18.5, 3, True, "Oslo"], ROW)
    assert named(found[0], "attribution") == pytest.approx(exact([52.0, 18.5, 3, True, "Oslo"]), abs=1e-9)
    assert named(found[1], "attribution") == pytest.approx(exact(ROW), abs=1e-9)


@pytest.fixture(scope="module")
def trees() -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """Breast cancer, 30 features: log-odds of boosted trees; background, rows, and their exact values."""
    data, classes = load_breast_cancer(return_X_y=True)
    model = GradientBoostingClassifier(random_state=0, n_estimators=40).fit(data[100:], classes[100:])
    rows, some = data[:12], data[100:200]
    oracle = shap.TreeExplainer(model, some, feature_perturbation="interventional")
    values = np.array(oracle.shap_values(rows, check_additivity=False))
    adds_up = np.abs(values.sum(axis=1) + model.decision_function(some).mean() - model.decision_function(rows)) < 1e-6
    return model, some, rows[adds_up], values[adds_up]


CANCER = "\n".join(
    [
        "schemaversion: 1",
        "identity: {namespace: clinic, inferenceservice: cancer}",
        "features:",
        *(f"  - {{name: f{at}, type: numeric}}" for at in range(30)),
        "outputs: {kind: values}",
    ]
)


def test_two_stated_errors_hold_nine_times_of_ten(artifact: ArtifactOf, trees: Any) -> None:
    model, some, rows, values = trees
    folder = artifact(model=CANCER, rows={f"f{at}": some[:, at] for at in range(30)})
    with house(folder, parse_model(CANCER), lambda table: model.decision_function(matrix(table))) as home:
        found = explained(home, *rows.tolist())
    said = np.array([[one["attribution"] for one in item["attributions"]["prediction"]] for item in found])
    errors = np.array([[one["standard_error"] for one in item["attributions"]["prediction"]] for item in found])
    covered = np.abs(said - values) <= 2 * errors + 1e-9
    acting = np.abs(values) > 1e-9
    assert 0.9 <= covered[acting].mean() <= 0.995
    assert np.abs(said - values).sum() / np.abs(values).sum() < 0.05
    assert all(item["cost"]["rows"] <= 210_800 / 30 for item in found)
    assert all(item["complete"] for item in found)


def test_the_same_row_is_explained_the_same_way_and_another_seed_differently(artifact: ArtifactOf, trees: Any) -> None:
    model, some, rows, _ = trees
    folder = artifact(model=CANCER, rows={f"f{at}": some[:, at] for at in range(30)})
    with house(folder, parse_model(CANCER), lambda table: model.decision_function(matrix(table))) as home:
        first, again = (explained(home, rows[0].tolist())[0]["attributions"] for _ in range(2))
        other = explained(home, rows[0].tolist(), seed=5)[0]
    assert first == again
    assert other["seed"] == 5
    assert other["attributions"] != first


def test_the_deadline_gives_the_best_there_is_and_says_so(artifact: ArtifactOf, trees: Any) -> None:
    import time

    model, some, rows, values = trees
    folder = artifact("predictor: {batch_rows: 600}\n", CANCER, {f"f{at}": some[:, at] for at in range(30)})

    def slow(table: Table) -> Any:
        time.sleep(0.05)
        return model.decision_function(matrix(table))

    with house(folder, parse_model(CANCER), slow) as home:
        began = time.monotonic()
        (found,) = explained(home, rows[0].tolist(), deadline_ms=350)
        assert time.monotonic() - began < 0.6
        assert not found["complete"]
        assert 2 <= found["error"]["background_rows"] < 100
        said = np.array([one["attribution"] for one in found["attributions"]["prediction"]])
        errors = np.array([one["standard_error"] for one in found["attributions"]["prediction"]])
        acting = np.abs(values[0]) > 1e-9
        assert (np.abs(said - values[0])[acting] <= 3 * errors[acting]).mean() > 0.8
        assert home.sample("servelens_explanations_total", result="partial") == 1
        late = home.client.post(
            "/v1/models/m:explain", json={"instances": [rows[1].tolist()], "parameters": {"deadline_ms": 20}}
        )
        assert late.status_code == 504
        assert "deadline" in late.json()["error"]


def test_a_row_budget_walks_fewer_background_rows(artifact: ArtifactOf, trees: Any) -> None:
    model, some, rows, values = trees
    folder = artifact("max_rows: 2000\n", CANCER, {f"f{at}": some[:, at] for at in range(30)})
    with house(folder, parse_model(CANCER), lambda table: model.decision_function(matrix(table))) as home:
        (found,) = explained(home, rows[0].tolist())
    assert found["cost"]["rows"] <= 2000
    assert not found["complete"]
    said = np.array([one["attribution"] for one in found["attributions"]["prediction"]])
    errors = np.array([one["standard_error"] for one in found["attributions"]["prediction"]])
    acting = np.abs(values[0]) > 1e-9
    assert (np.abs(said - values[0])[acting] <= 3 * errors[acting]).mean() > 0.8


THREE = MODEL.replace("classes: [good, bad]", "classes: [a, b, c]")


def test_every_class_of_several_is_explained_from_the_same_rows(artifact: ArtifactOf) -> None:
    def three(table: Table) -> Any:
        bad = risk(table)[:, 1]
        return np.column_stack([bad / 2, bad**2 / 2, 1 - bad / 2 - bad**2 / 2])

    with house(artifact(model=THREE), parse_model(THREE), three) as home:
        (found,) = explained(home, ROW)
    assert set(found["attributions"]) == {"score:a", "score:b", "score:c"}
    halves = {one["feature"]: 2 * one["attribution"] for one in found["attributions"]["score:a"]}
    assert halves == pytest.approx(exact(ROW), abs=1e-9)
    total = {
        name: sum(one["attribution"] for out in found["attributions"].values() for one in out if one["feature"] == name)
        for name in FEATURES
    }
    assert total == pytest.approx(dict.fromkeys(FEATURES, 0.0), abs=1e-9)


ONE = """
schemaversion: 1
identity: {namespace: n, inferenceservice: i}
features: [{name: x, type: numeric}]
outputs: {kind: values}
"""


def test_one_feature_gets_it_all(artifact: ArtifactOf) -> None:
    folder = artifact(model=ONE, rows={"x": [1.0, 2.0, 3.0]})
    with house(folder, parse_model(ONE), lambda table: table.columns["x"] * 2) as home:
        (found,) = explained(home, [10.0])
    assert found["attributions"]["prediction"] == [{"feature": "x", "attribution": 16.0, "standard_error": 0.0}]


@pytest.mark.parametrize(
    ("features", "background_rows", "limit", "rows", "pairs", "exact_", "sampled"),
    [
        (30, 100, 50_000, 100, 1, False, False),
        (13, 100, 50_000, 100, 4, False, False),
        (6, 100, 50_000, 100, 5, False, False),
        (5, 100, 50_000, 100, 1, True, False),
        (30, 100, 3_000, 50, 1, False, True),
        (1000, 100, 50_000, 25, 1, False, True),
        (13, 100, 6_000, 100, 2, False, False),
        (5, 40, 60, 6, 1, False, True),
        (3000, 1000, 12_000, 2, 1, False, True),
    ],
)
def test_the_plan_follows_width_and_budget(
    features: int, background_rows: int, limit: int, rows: int, pairs: int, exact_: bool, sampled: bool
) -> None:
    plan = plan_of(features, background_rows, limit)
    assert (plan.rows, plan.pairs, plan.exact, plan.sampled) == (rows, pairs, exact_, sampled)
    assert plan.rows * plan.pairs * plan.each + plan.rows + 1 <= limit
    assert plan.whole == ((rows, pairs) in ((100, 1), (100, 4), (100, 5)))


def test_a_budget_too_small_for_an_error_is_refused() -> None:
    with pytest.raises(TooLarge, match="needs 23 at least"):
        plan_of(6, 100, 22)


def test_rows_of_one_request_and_of_many_share_calls(home: House, tmp_path: Path) -> None:
    explained(home, ROW)
    sent = sum(home.model.calls)
    assert home.sample("servelens_explanation_predictor_rows_total") == sent
    before = len(home.model.calls)
    explained(home, *([ROW] * 8))
    assert len(home.model.calls) - before < 8
    assert home.sample("servelens_explanation_rows_saved_total", reason="duplicate") > 0
    assert home.sample("servelens_explanation_rows_saved_total", reason="cached") > 0
