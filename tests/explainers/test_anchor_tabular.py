"""Anchors over real HTTP: the rule is the planted one, and holds as often as is said, on rows drawn here."""

import asyncio
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from explainers_parts import MODEL, ArtifactOf, House, background, house

from explainers.methods.anchor_tabular import classes, precision_error
from servelens.contract.schema import ModelSchema, parse_model
from servelens.contract.table import Table

with warnings.catch_warnings():  # at import alibi and what it imports use much that is deprecated
    warnings.simplefilter("ignore")
    import alibi.explainers  # noqa: F401

ANCHORS = "methods: [{name: permutation_shap}, {name: anchor_tabular, threshold: 0.95}]\n"


def planted(table: Table) -> Any:
    """Bad if and only if in Graz and older than 40; but for one row in forty, by income."""
    columns = table.columns
    bad = (columns["city"] == "Graz") & (columns["age"] > 40)
    noise = (columns["income"] * 1000).astype(int) % 40 == 0
    score = np.where(bad ^ noise, 0.9, 0.1)
    return np.column_stack([1 - score, score])


@pytest.fixture
def home(artifact: ArtifactOf, schema: ModelSchema) -> Iterator[House]:
    with house(artifact(ANCHORS, rows=background(400)), schema, planted, deadline=60.0) as made:
        yield made


def anchor(home: House, row: list[Any], **parameters: Any) -> dict[str, Any]:
    answer = home.client.post(
        "/v1/models/m:explain",
        json={"instances": [row], "parameters": {"method": "anchor_tabular", **parameters}},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["explanations"][0]
    return found


def test_the_planted_rule_is_found_and_holds_as_often_as_is_said(home: House) -> None:
    found = anchor(home, [55.0, 20.5, 2, True, "Graz"])
    assert found["outcome"] == "bad"
    assert "city = Graz" in found["rule"]
    assert any(rule.startswith("age > ") for rule in found["rule"])
    error = found["error"]
    assert error["precision_met"]
    assert found["complete"]
    # Fresh rows, drawn here: the rule's features held, all else from other background rows.
    random, rows = np.random.default_rng(9), background(400)
    other = random.integers(0, 400, 20_000)
    low = max(float(rule.removeprefix("age > ")) for rule in found["rule"] if rule.startswith("age > "))
    numbers = {name: np.asarray(rows[name], float)[other] for name in ("age", "income", "visits", "member")}
    numbers["age"] = random.choice(rows["age"][rows["age"] > low], 20_000)
    table = Table.of({**numbers, "city": np.array(["Graz"] * 20_000, object)})
    share = (planted(table)[:, 1] > 0.5).mean()
    assert abs(share - error["precision"]) <= 4 * error["standard_error"]
    assert 0 < error["standard_error"] < 0.02
    assert found["cost"]["calls"] >= 2


def test_a_rule_that_needs_no_condition(home: House) -> None:
    found = anchor(home, [25.0, 20.5, 2, True, "Bern"])
    assert found["outcome"] == "good"
    assert len(found["rule"]) <= 1


def test_an_unseen_category_and_null_are_no_obstacle(home: House) -> None:
    assert anchor(home, [55.0, 20.5, 2, True, "Oslo"])["outcome"] == "good"
    assert anchor(home, [55.0, 20.5, 2, True, None])["outcome"] == "good"


def test_as_v2_tensors(home: House) -> None:
    row = [55.0, 20.5, 2, True, "Graz"]
    kinds = {"city": "BYTES"}
    inputs = [
        {
            "name": name,
            "shape": [1],
            "datatype": kinds.get(name, "FP64"),
            "data": [float(value) if name != "city" else value],
        }
        for name, value in zip(background(), row, strict=True)
    ]
    answer = home.client.post(
        "/v2/models/m/explain", json={"inputs": inputs, "parameters": {"method": "anchor_tabular"}}, timeout=60
    )
    tensors = {one["name"]: one for one in answer.json()["outputs"]}
    assert "city = Graz" in tensors["rules"]["data"][0]
    assert tensors["outcomes"]["data"] == ["bad"]
    assert tensors["precisions"]["data"][0] > 0.9


def test_a_predictor_that_fails_in_the_middle_is_a_typed_error(home: House) -> None:
    home.model.trouble = lambda answer: answer[:-1] if len(answer) > 5 else answer
    answer = home.client.post(
        "/v1/models/m:explain",
        json={"instances": [[55.0, 20.5, 2, True, "Graz"]], "parameters": {"method": "anchor_tabular"}},
        timeout=60,
    )
    assert answer.status_code == 502
    assert "rows to" in answer.json()["error"]


def test_a_model_without_classes_has_no_anchors(artifact: ArtifactOf) -> None:
    text = MODEL.replace("kind: probabilities, classes: [good, bad]", "kind: values")
    with house(artifact(ANCHORS, text), parse_model(text), lambda table: table.columns["age"]) as home:
        answer = home.client.post(
            "/v1/models/m:explain",
            json={"instances": [[55.0, 20.5, 2, True, "Graz"]], "parameters": {"method": "anchor_tabular"}},
        )
    assert answer.status_code == 400
    assert "classes" in answer.json()["error"]


def test_classes_are_the_likeliest_of_each_row() -> None:
    assert classes(np.array([[0.2], [0.7]])).tolist() == [0, 1]
    assert classes(np.array([[0.2, 0.5, 0.3], [0.7, 0.1, 0.2]])).tolist() == [1, 0]


def test_a_share_of_one_is_not_certain() -> None:
    assert 0 < precision_error(1000, 1000) < 0.002
    assert precision_error(500, 1000) == pytest.approx(0.0158, abs=1e-4)


def test_any_seed_will_do_and_the_deadline_holds_behind_others(home: House) -> None:
    assert anchor(home, [55.0, 20.5, 2, True, "Graz"], seed=2**40)["outcome"] == "bad"

    async def slowly(answer: Any) -> Any:
        await asyncio.sleep(0.4)
        return answer

    home.model.trouble = slowly
    with ThreadPoolExecutor(3) as pool:
        began = time.monotonic()
        parameters = {"method": "anchor_tabular", "deadline_ms": 900}
        bodies = [{"instances": [[50.0 + at, 20.5, 2, True, "Graz"]], "parameters": parameters} for at in range(3)]
        codes = list(pool.map(lambda body: home.client.post("/v1/models/m:explain", json=body).status_code, bodies))
        assert time.monotonic() - began < 2.5
    assert set(codes) == {504}


def test_alibi_prints_nothing(home: House, capfd: pytest.CaptureFixture[str]) -> None:
    anchor(home, [55.0, 20.5, 2, True, "Oslo"])
    assert capfd.readouterr().out == ""
