"""The explainer's HTTP face: both protocols, health, metadata, limits, identity, and every error typed."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from explainers_parts import MODEL, ROW, ArtifactOf, House, house, risk

from explainers import answers
from servelens.contract import oip, synthetic
from servelens.contract.schema import ModelSchema, parse_model

NAMES = ("age", "income", "visits", "member", "city")


def v2_inputs(*rows: list[Any]) -> list[oip.Tensor]:
    columns = list(zip(*rows, strict=True))
    kinds = ("FP64", "FP64", "INT64", "BOOL", "BYTES")
    dtypes = (float, float, np.int64, bool, object)
    return [
        oip.Tensor.of(name, np.array(column, dtype), kind)
        for name, column, kind, dtype in zip(NAMES, columns, kinds, dtypes, strict=True)
    ]


def explain(home: House, body: Any, path: str = "/v1/models/m:explain", **more: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return home.client.post(path, content=content, **more)


def test_v1_and_v2_and_binary_say_the_same(home: House) -> None:
    said = explain(home, {"instances": [ROW, ROW]}).json()["explanations"]
    v1 = [[[one["attribution"] for one in item["attributions"]["score"]]] for item in said]
    json_body = oip.encode_request(oip.InferRequest(tuple(v2_inputs(ROW, ROW)), id="7")).body
    as_json = explain(home, json_body, "/v2/models/m/explain")
    document = as_json.json()
    assert document["id"] == "7"
    assert document["model_name"] == "m"
    assert document["parameters"]["method"] == "permutation_shap"
    v2 = {one.name: one for one in oip.decode_response(as_json.content).outputs}
    binary = oip.encode_request(
        oip.InferRequest(tuple(v2_inputs(ROW, ROW)), parameters={"binary_data_output": True}), oip.ALL
    )
    length = {"inference-header-content-length": str(binary.header_length)}
    as_binary = explain(home, binary.body, "/v2/models/m/explain", headers=length)
    told = int(as_binary.headers["inference-header-content-length"])
    both = {one.name: one for one in oip.decode_response(as_binary.content, told).outputs}
    assert v2["attributions"].shape == (2, 1, 5)
    assert v2["attributions"].data.tolist() == both["attributions"].data.tolist() == v1
    assert [name.decode() for name in v2["feature_names"].data] == list(NAMES)
    assert [name.decode() for name in both["output_names"].data] == ["score"]
    assert v2["complete"].data.tolist() == [True, True]
    sums = v2["base_values"].data[:, 0] + v2["attributions"].data[:, 0].sum(axis=1)
    assert np.allclose(sums, v2["predictions"].data[:, 0])
    assert set(v2) <= {name for name, *_ in answers.DECLARED}
    for name, kind, shape in answers.DECLARED:
        if name in v2:
            assert v2[name].datatype == kind
            assert len(v2[name].shape) == len(shape)


def test_infer_answers_as_mlserver_does_or_what_is_asked_for(home: House) -> None:
    plain = oip.encode_request(oip.InferRequest(tuple(v2_inputs(ROW)))).body
    (only,) = explain(home, plain, "/v2/models/m/infer").json()["outputs"]
    assert (only["name"], only["datatype"], only["shape"]) == ("explanation", "BYTES", [1, 1])
    assert only["parameters"] == {"content_type": "str"}
    assert orjson.loads(only["data"][0])["method"] == "permutation_shap"
    wanted = tuple(oip.RequestedOutput(name) for name in ("attributions", "complete"))
    asked = oip.encode_request(oip.InferRequest(tuple(v2_inputs(ROW)), outputs=wanted)).body
    for path in ("/v2/models/m/infer", "/v2/models/m/explain"):
        assert [one["name"] for one in explain(home, asked, path).json()["outputs"]] == ["attributions", "complete"]
    unknown = oip.encode_request(oip.InferRequest(tuple(v2_inputs(ROW)), outputs=(oip.RequestedOutput("shap"),))).body
    answer = explain(home, unknown, "/v2/models/m/infer")
    assert answer.status_code == 404
    assert "'shap'; there are attributions" in answer.json()["error"]


def test_health_and_metadata(home: House) -> None:
    get = home.client.get
    for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/v1/models/m", "/v2/models/m/ready"):
        assert get(path).status_code == 200, path
    assert get("/v1/models").json() == {"models": ["m"]}
    assert "binary_tensor_data" in get("/v2").json()["extensions"]
    document = get("/v2/models/m").json()
    assert [one["name"] for one in document["inputs"]] == list(NAMES)
    assert [one["datatype"] for one in document["inputs"]] == ["FP64"] * 4 + ["BYTES"]
    assert {one["name"] for one in document["outputs"]} >= {"attributions", "rules", "explanation"}
    paths = get("/openapi.json").json()["paths"]
    assert "/v1/models/{name}:explain" in paths
    assert "post" in paths["/v2/models/{name}/explain"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "body"),
        (b"[]", 400, "body: the root is an array"),
        ({}, 400, "instances: is null"),
        ({"instances": [[1, 2]]}, 400, "instances[0]: has 2 values, the model has 5 features"),
        ({"instances": [["x", 1, 1, True, "Graz"]]}, 400, "age: text that is no number"),
        ({"instances": [ROW], "parameters": {"metod": "x"}}, 400, "parameters.metod"),
        ({"instances": [ROW], "parameters": {"seed": -1}}, 400, "parameters.seed"),
        ({"instances": [ROW], "parameters": {"deadline_ms": "1"}}, 400, "parameters.deadline_ms"),
        ({"instances": [ROW], "parameters": [1]}, 400, "parameters: is not an object"),
        ({"instances": [ROW], "parameters": {"method": "lime"}}, 404, "no 'lime' here; explainer.yaml offers"),
        ({"instances": [ROW] * 65}, 413, "65 rows"),
    ],
)
def test_a_bad_request_names_its_field(home: House, body: Any, status: int, words: str) -> None:
    answer = explain(home, body)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert words in answer.json()["error"]
    assert home.sample("servelens_explanation_errors_total") == 1
    assert home.model.calls == []


def test_other_bad_requests(home: House) -> None:
    assert explain(home, {"instances": [ROW]}, "/v1/models/other:explain").status_code == 404
    assert explain(home, b"x" * (17 << 20)).status_code == 413
    assert explain(home, {"instances": [ROW]}, headers={"content-encoding": "gzip"}).status_code == 400
    length = {"inference-header-content-length": "x"}
    assert explain(home, b"{}", "/v2/models/m/explain", headers=length).status_code == 400
    assert explain(home, {"instances": []}).json() == {"explanations": []}
    assert (
        explain(
            home, {"inputs": [{"name": "age", "shape": [1], "datatype": "FP64", "data": [1]}]}, "/v2/models/m/explain"
        ).status_code
        == 400
    )


def test_nothing_of_a_requests_headers_comes_back(home: House) -> None:
    secret = {"authorization": "Bearer tell-nobody", "cookie": "a=tell-nobody", "x-request-id": "tell-nobody"}
    for body in ({"instances": [ROW]}, b"{"):
        answer = explain(home, body, headers=secret)
        assert "tell-nobody" not in str(answer.headers) + answer.text
    assert all("tell-nobody" not in str(headers) for headers in home.model.headers)


def test_the_predictors_faults_are_bad_gateways(artifact: ArtifactOf, schema: ModelSchema) -> None:
    with house(artifact(), schema) as home:
        home.model.trouble = lambda answer: answer * np.nan
        assert explain(home, {"instances": [ROW]}).status_code == 502
        assert home.sample("servelens_explanations_total", result="failed") == 1
        assert home.sample("servelens_explanation_errors_total", reason="upstreamerror") == 1
        home.model.trouble = None
        assert explain(home, {"instances": [ROW]}).status_code == 200
        assert home.sample("servelens_explanation_predictor_calls_total", code="200") == len(home.model.calls)


def test_a_model_that_changes_once_is_asked_once_more(artifact: ArtifactOf, schema: ModelSchema) -> None:
    """A rollout between two calls of one explanation: the second try is the new model's alone."""
    with house(artifact("predictor: {batch_rows: 300, in_flight: 1}\n"), schema) as home:
        home.model.trouble = lambda answer: answer if len(home.model.calls) == 1 else answer[:, ::-1]
        answer = explain(home, {"instances": [ROW]})
        assert answer.status_code == 200
        found = answer.json()["explanations"][0]
        assert found["error"]["additivity_gap"] < 1e-12
        assert home.sample("servelens_explanation_predictor_changes_total") == 1
        home.model.trouble = lambda answer: answer if len(home.model.calls) % 2 else answer[:, ::-1]
        flapping = explain(home, {"instances": [[1.0, *ROW[1:]]]})
        assert flapping.status_code == 503
        assert "two answers to the same row" in flapping.json()["error"]


def test_more_than_can_run_and_wait_are_told_to_come_back(artifact: ArtifactOf, schema: ModelSchema) -> None:
    async def slowly(answer: Any) -> Any:
        await asyncio.sleep(0.3)
        return answer

    with house(artifact(), schema, workers=1) as home, ThreadPoolExecutor(24) as pool:
        home.model.trouble = slowly
        bodies = [{"instances": [[float(at), *ROW[1:]]]} for at in range(24)]
        codes = list(pool.map(lambda body: explain(home, body), bodies))
    refused = [answer for answer in codes if answer.status_code == 429]
    assert {answer.status_code for answer in codes} == {200, 429}
    assert len(refused) >= 24 - 9 - 3
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)


def test_a_caller_needs_the_token_where_one_is_set(artifact: ArtifactOf, schema: ModelSchema, tmp_path: Path) -> None:
    (tmp_path / "callers").write_text("open-sesame\n")
    with house(artifact(), schema, caller_token_file=tmp_path / "callers") as home:
        answer = explain(home, {"instances": [ROW]})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        wrong = {"authorization": "Bearer open-sesamf"}
        assert explain(home, {"instances": [ROW]}, headers=wrong).status_code == 401
        right = {"authorization": "Bearer open-sesame"}
        assert explain(home, {"instances": [ROW]}, headers=right).status_code == 200
        for probed in ("/healthz", "/v1/models/m", "/v2/models/m", "/v2/models/m/ready"):
            assert home.client.get(probed).status_code == 200  # kubelet has no token
    assert all("authorization" not in headers for headers in home.model.headers)


def test_forwarded_authorization_ends_sharing(artifact: ArtifactOf, schema: ModelSchema) -> None:
    with house(artifact(), schema, forward_authorization=True) as home:
        for caller in ("a", "b", "a"):
            explain(home, {"instances": [ROW]}, headers={"authorization": f"Bearer {caller}"})
    assert [headers["authorization"] for headers in home.model.headers] == ["Bearer a", "Bearer b", "Bearer a"]
    assert home.model.calls[0] == home.model.calls[1] > home.model.calls[2]  # its own background was cached


def test_the_tap_can_tell_what_is_synthetic(artifact: ArtifactOf, schema: ModelSchema, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"k" * 32)
    with house(artifact(), schema, synthetic_key=tmp_path / "key") as home:
        explain(home, {"instances": [ROW]})
    valid = synthetic.verifier(b"k" * 32)
    assert home.model.headers
    assert all(valid(headers[synthetic.HEADER]) for headers in home.model.headers)


def test_a_client_that_leaves_frees_its_place(artifact: ArtifactOf, schema: ModelSchema) -> None:
    async def slowly(answer: Any) -> Any:
        await asyncio.sleep(3.0)
        return answer

    with house(artifact(), schema, workers=1) as home:
        home.model.trouble = slowly
        for at in range(3):
            with pytest.raises(httpx.ReadTimeout):
                explain(home, {"instances": [[float(at), *ROW[1:]]]}, timeout=0.2)
        deadline = time.monotonic() + 2
        while home.sample("servelens_explanations_in_flight") + home.sample("servelens_explanations_waiting"):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_concurrent_rows_with_categories_nobody_knows_keep_their_own(home: House) -> None:
    """Each caller's unseen text has the same code: in one call they must not be taken for each other."""
    bodies = [{"instances": [[52.0, 18.5, 3, True, city]]} for city in ("Oslo", "Paris", "Graz", "Rome")]
    alone = [explain(home, body).json()["explanations"][0]["attributions"] for body in bodies]
    home.explainer.explaining.batcher.cache._kept.clear()
    with ThreadPoolExecutor(4) as pool:
        together = [
            one.json()["explanations"][0]["attributions"] for one in pool.map(lambda body: explain(home, body), bodies)
        ]
    assert together == alone
    assert alone[0] != alone[2]
    sent = b"".join(home.model.bodies)
    assert b"Oslo" in sent
    assert b"Paris" in sent


def test_one_callers_bad_row_is_no_others(artifact: ArtifactOf, schema: ModelSchema) -> None:
    async def slowly(answer: Any) -> Any:
        await asyncio.sleep(0.1)
        return answer

    def picky(table: Any) -> Any:
        if "POISON" in table.columns["city"]:
            raise ValueError("no such city: POISON")
        return risk(table)

    with house(artifact("predictor: {in_flight: 1}\n"), schema, picky) as home, ThreadPoolExecutor(6) as pool:
        home.model.trouble = slowly
        cities = ["Bern", "POISON", "Graz", "Metz", "POISON", "Bern"]
        bodies = [{"instances": [[float(at), *ROW[1:4], city]]} for at, city in enumerate(cities)]
        found = list(pool.map(lambda body: explain(home, body), bodies))
    assert [answer.status_code for answer in found] == [502 if city == "POISON" else 200 for city in cities]


def test_forwarding_needs_something_to_forward(artifact: ArtifactOf, schema: ModelSchema, tmp_path: Path) -> None:
    (tmp_path / "own").write_text("own-token")
    with house(artifact(), schema, forward_authorization=True, predictor_token_file=tmp_path / "own") as home:
        assert explain(home, {"instances": [ROW]}).status_code == 401
        assert home.client.get("/v2/models/m/ready").status_code == 200
        assert explain(home, {"instances": [ROW]}, headers={b"authorization": b"Bearer \xff"}).status_code == 400
        assert home.model.calls == []


def test_unknown_paths_and_methods_are_errors_like_the_others(home: House) -> None:
    for verb, path in (("GET", "/nope"), ("GET", "/v1/models/m:explain"), ("POST", "/v1/models/m:predict")):
        answer = home.client.request(verb, path)
        assert answer.status_code in (404, 405)
        assert set(answer.json()) == {"error"}


def test_outputs_of_any_size_are_answered_or_refused(artifact: ArtifactOf) -> None:
    schema = parse_model(MODEL.replace("kind: probabilities, classes: [good, bad]", "kind: values"))
    text = MODEL.replace("kind: probabilities, classes: [good, bad]", "kind: values")
    for size, status in ((1e17, 200), (1e-300, 200), (1e306, 502)):
        with house(artifact(model=text), schema, lambda table, size=size: size * (1 + table.columns["age"])) as home:
            for accept in ("application/json", "text/html"):
                answer = explain(home, {"instances": [ROW]}, headers={"accept": accept})
                assert answer.status_code == status, answer.text
    with house(artifact(model=text), schema, lambda table: np.full(table.rows, 1e17)) as home:
        assert explain(home, {"instances": [ROW]}, headers={"accept": "text/html"}).status_code == 200


def test_tensors_nobody_has_are_refused_before_any_work(home: House) -> None:
    body = oip.encode_request(oip.InferRequest(tuple(v2_inputs(ROW)), outputs=(oip.RequestedOutput("shap"),))).body
    assert explain(home, body, "/v2/models/m/explain").status_code == 404
    assert home.model.calls == []


def test_metrics_carry_the_models_identity(home: House) -> None:
    explain(home, {"instances": [ROW]})
    text = home.metrics()
    identity = 'component="predictor",inferenceservice="risk"'
    assert f"servelens_explanations_total{{{identity}" in text
    assert home.sample("servelens_explanation_duration_seconds_count", method="permutation_shap") == 1
    assert home.sample("servelens_explanation_relative_error_count") == 1
    said = explain(home, {"instances": [ROW]}).json()["explanations"][0]["attributions"]["score"]
    whole = sum(abs(one["attribution"]) for one in said)
    for one in said:
        share = home.sample("servelens_explanation_attribution_share_total", column=one["feature"])
        assert share == pytest.approx(2 * abs(one["attribution"]) / whole)
