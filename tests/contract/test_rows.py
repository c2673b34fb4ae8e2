"""Rows out of payloads: however a client sends them, the table is the same; what cannot be a table is a typed error."""

import itertools
import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servelens.contract import oip, v1
from servelens.contract.elements import DTYPE
from servelens.contract.errors import PayloadError, TooLarge
from servelens.contract.identity import ModelIdentity
from servelens.contract.jsontext import Json
from servelens.contract.limits import Limits
from servelens.contract.oip import ALL, InferRequest, InferResponse, Tensor
from servelens.contract.paths import route_of
from servelens.contract.rows import decode_exchange_bodies, prediction_table, request_table
from servelens.contract.schema import Feature, ModelSchema, OutputKind, Outputs
from servelens.contract.table import Column, Table, same_table

NAN = float("nan")
WHO = ModelIdentity("demo", "flights")
VALUES = Outputs("values")
NUMBERS = ModelSchema(WHO, (Feature("a", "numeric"), Feature("b", "integer"), Feature("c", "boolean")), VALUES)
MIXED = ModelSchema(
    WHO,
    (Feature("carrier", "categorical", ("AA", "UA")), Feature("delay", "numeric"), Feature("tail", "categorical")),
    Outputs("probabilities", "probabilities", ("on_time", "late")),
)
ONE = ModelSchema(WHO, (Feature("x", "numeric"),), VALUES)


def numeric(*values: float) -> Column:
    return np.array(values, np.float64)


def text(*values: str | None) -> Column:
    return np.array(values, object)


def reason_of(call: Callable[[], object]) -> str:
    with pytest.raises(PayloadError) as caught:
        call()
    return caught.value.reason


def v1_table(schema: ModelSchema, instances: Any) -> Table:
    return request_table(schema, v1.decode_request(json.dumps({"instances": instances}).encode()))


def v2_bodies(*tensors: Tensor) -> Iterator[InferRequest]:
    """One request in every form the protocol has for it, read back."""
    request = InferRequest(tensors)
    if all(tensor.datatype != "FP16" for tensor in tensors):
        for nested in (True, False):
            yield oip.decode_request(oip.encode_request(request, nested=nested).body)
        yield oip.decode_request(*oip.encode_request(request, {tensors[0].name}))
    body, length = oip.encode_request(request, ALL)
    yield oip.decode_request(body, length)
    yield oip.decode_request(b" " + body)  # nothing is aligned any more


doubles = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(doubles, st.integers(-(2**53), 2**53), st.booleans()), min_size=1, max_size=4))
def test_numeric_rows_are_one_table_however_they_are_sent(rows: list[tuple[float, int, bool]]) -> None:
    a, b, c = zip(*rows, strict=True)
    expected = Table.of({"a": numeric(*a), "b": numeric(*b), "c": numeric(*c)})
    lists: list[Any] = [list(row) for row in rows]
    objects: list[Json] = [dict(zip("cab", (row[2], row[0], row[1]), strict=True)) for row in rows]
    columns: Json = {"a": list(a), "b": list(b), "c": list(c)}
    for instances in (lists, objects, [columns], [lists], [objects]):
        assert same_table(v1_table(NUMBERS, instances), expected)
    inputs = json.dumps({"inputs": columns}).encode()
    assert same_table(request_table(NUMBERS, v1.decode_request(inputs)), expected)

    matrix = np.array([[float(value) for value in row] for row in rows])
    by_name = [Tensor.of("b", np.array(b)), Tensor.of("c", np.array(c)[:, None]), Tensor.of("a", np.array(a))]
    for request in (*v2_bodies(Tensor.of("input-0", matrix)), *v2_bodies(*by_name, Tensor.of("unused", matrix))):
        assert same_table(request_table(NUMBERS, request), expected)
    written = Tensor.of("input-0", np.array([[repr(value).encode() for value in row] for row in rows], object))
    for request in v2_bodies(written):
        assert same_table(request_table(NUMBERS, request), expected)


names = st.none() | st.text(max_size=4)


@given(st.lists(st.tuples(names, st.none() | doubles, names), min_size=1, max_size=4))
def test_mixed_rows_with_nulls_are_one_table_however_they_are_sent(
    rows: list[tuple[str | None, float | None, str | None]],
) -> None:
    carrier, delay, tail = zip(*rows, strict=True)
    filled = [NAN if value is None else value for value in delay]
    expected = Table.of({"carrier": text(*carrier), "delay": numeric(*filled), "tail": text(*tail)})
    lists: list[Any] = [list(row) for row in rows]
    # A null may be left out, as long as a feature is there at all.
    objects: list[Any] = [
        {key: value for key, value in zip(MIXED.names, row, strict=True) if value is not None}
        | {"id": 7, "tail": row[2]}
        for row in rows
    ]
    for instances in (lists, objects, [lists], [objects]):
        assert same_table(v1_table(MIXED, instances), expected)
    tensors = [
        Tensor.of("carrier", text(*carrier)),
        Tensor.of("delay", numeric(*filled)),
        Tensor.of("tail", text(*tail)[:, None]),
    ]
    for binary in ((), {"delay"}):
        request = oip.decode_request(*oip.encode_request(InferRequest(tuple(tensors)), binary))
        assert same_table(request_table(MIXED, request), expected)


@pytest.mark.parametrize("datatype", ["UINT8", "INT16", "INT64", "UINT64", "FP16", "FP32", "FP64"])
def test_integers_in_a_matrix_are_codes_of_categories(datatype: str) -> None:
    matrix = np.array([[0, 5, 12], [1, 6, 0], [2, 7, 3]])
    tensor = Tensor.of("input-0", matrix.astype(DTYPE[datatype]))
    expected = Table.of({"carrier": text("AA", "UA", "2"), "delay": numeric(5, 6, 7), "tail": text("12", "0", "3")})
    for request in v2_bodies(tensor):
        assert same_table(request_table(MIXED, request), expected)
    assert same_table(v1_table(MIXED, matrix.tolist()), expected)
    assert same_table(v1_table(MIXED, matrix.astype(float).tolist()), expected)


@pytest.mark.parametrize(
    ("value", "coded", "free"),
    [
        ("AA", "AA", "AA"),
        ("", "", ""),
        (1, "UA", "1"),
        (1.0, "UA", "1"),
        (True, "UA", "1"),
        (-1, "-1", "-1"),
        (-0.0, "AA", "0"),
        (1.5, "1.5", "1.5"),
        (2**60 + 1, "1152921504606846977", "1152921504606846977"),
        (None, None, None),
    ],
)
def test_a_category_has_one_text(value: Json, coded: str | None, free: str | None) -> None:
    table = v1_table(MIXED, [[value, 1, value]])
    assert same_table(table, Table.of({"carrier": text(coded), "delay": numeric(1), "tail": text(free)}))


def test_integers_are_meant_literally_where_the_categories_are_integers() -> None:
    schema = ModelSchema(WHO, (Feature("x", "categorical", ("1", "2")),), VALUES)
    assert v1_table(schema, [1, "2", 0]).columns["x"].tolist() == ["1", "2", "0"]


def test_a_nan_code_is_null_and_an_infinite_number_stays() -> None:
    request = InferRequest((Tensor.of("m", np.array([[NAN, np.inf, np.inf]])),))
    table = request_table(MIXED, oip.decode_request(*oip.encode_request(request, ALL)))
    expected = Table.of({"carrier": text(None), "delay": numeric(np.inf), "tail": text("inf")})
    assert same_table(table, expected)


def test_a_signalling_nan_is_a_null_like_any_other() -> None:
    data = np.array([[0x7FA00000]], np.uint32).view(np.float32)
    for request in v2_bodies(Tensor.of("x", data)):
        assert np.isnan(request_table(ONE, request).columns["x"]).all()
    two = ModelSchema(WHO, (Feature("x", "numeric"), Feature("y", "numeric")), VALUES)
    request = InferRequest((Tensor.of("x", data), Tensor.of("y", np.ones((1, 1), "i4"))))
    assert np.isnan(request_table(two, request).columns["x"]).all()


def test_booleans_may_be_words_and_empty_text_is_a_null_number() -> None:
    data = np.array([[b"1.5", b"", b"True"], [b" 2 ", b"-3", b"0"]], object)
    table = request_table(NUMBERS, InferRequest((Tensor.of("m", data),)))
    assert same_table(table, Table.of({"a": numeric(1.5, 2), "b": numeric(NAN, -3), "c": numeric(1, 0)}))


def test_no_rows_are_a_table_of_no_rows() -> None:
    for schema in (NUMBERS, MIXED):
        tables = [
            v1_table(schema, []),
            request_table(schema, InferRequest((Tensor.of("m", np.empty((0, 3))),))),
            request_table(schema, InferRequest(tuple(Tensor.of(name, np.empty(0)) for name in schema.names))),
        ]
        for table in tables:
            assert table.rows == 0
            assert same_table(Table.of(table.columns), tables[0])


def test_a_model_of_one_feature_takes_scalars_and_a_tensor_of_its_name_may_be_flat() -> None:
    expected = Table.of({"x": numeric(1, 2)})
    for instances in ([1, 2], [[1], [2]], [[[1]], [[2]]], [[[1], [2]]], [{"x": 1}, {"x": [2]}]):
        assert same_table(v1_table(ONE, instances), expected)
    assert same_table(request_table(ONE, InferRequest((Tensor.of("x", numeric(1, 2)),))), expected)
    assert same_table(request_table(ONE, InferRequest((Tensor.of("input-0", numeric(1, 2)[:, None]),))), expected)


def test_lists_in_an_object_are_rows_and_its_scalars_are_repeated() -> None:
    expected = Table.of({"a": numeric(1, 2, 4), "b": numeric(3, 3, 5), "c": numeric(NAN, NAN, 1)})
    assert same_table(v1_table(NUMBERS, [{"a": [1, 2], "b": 3}, {"a": 4, "b": 5, "c": True}]), expected)


@pytest.mark.parametrize(
    ("instances", "reason"),
    [
        ([[1, 2]], "wrong_shape"),
        ([[1, 2, 3, 4]], "wrong_shape"),
        ([1], "wrong_shape"),
        ([[]], "wrong_shape"),
        ([[[1, 2, 3], [1, 2]]], "wrong_shape"),
        ([[[1, 2, 3], 4]], "wrong_shape"),
        ([{}], "missing_column"),
        ([{"b64": "aGk="}], "missing_column"),
        ([{"a": [1, 2], "b": [1]}], "wrong_shape"),
        ([["x", 1, 1]], "wrong_type"),
        ([[{"a": 1}, 1, 1]], "wrong_type"),
        ([{"a": {"b64": "aGk="}}], "wrong_type"),
        ([{"a": [[1], [2]]}], "wrong_type"),
    ],
)
def test_v1_rows_that_are_not_the_model_s_are_typed_errors(instances: Json, reason: str) -> None:
    assert reason_of(lambda: v1_table(NUMBERS, instances)) == reason


def test_a_category_that_is_no_scalar_is_a_typed_error() -> None:
    assert reason_of(lambda: v1_table(MIXED, [{"carrier": {"x": 1}}])) == "wrong_type"


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ([], "missing_column"),
        ([Tensor.of("m", np.ones((2, 2)))], "wrong_shape"),
        ([Tensor.of("m", np.ones(3))], "wrong_shape"),
        ([Tensor.of("m", np.ones((1, 3, 1)))], "wrong_shape"),
        ([Tensor.of("a", np.ones(3))], "missing_column"),
        ([Tensor.of("a", np.ones(1)), Tensor.of("b", np.ones(1))], "missing_column"),
        ([Tensor.of("a", np.ones(2)), Tensor.of("b", np.ones(1)), Tensor.of("c", np.ones(2))], "wrong_shape"),
        ([Tensor.of("a", np.ones(())), Tensor.of("b", np.ones(())), Tensor.of("c", np.ones(()))], "wrong_shape"),
        ([Tensor.of("a", np.ones((1, 2))), Tensor.of("b", np.ones(1)), Tensor.of("c", np.ones(1))], "wrong_shape"),
        ([Tensor.of("m", np.array([[b"x", b"1", b"1"]], object))], "wrong_type"),
        ([Tensor.of("m", np.array([[b"\xff", b"1", b"1"]], object))], "not_utf8"),
    ],
)
def test_v2_tensors_that_are_not_the_model_s_are_typed_errors(tensors: list[Tensor], reason: str) -> None:
    assert reason_of(lambda: request_table(NUMBERS, InferRequest(tuple(tensors)))) == reason


def model(kind: OutputKind, *classes: str, tensor: str = "") -> ModelSchema:
    return ModelSchema(WHO, (Feature("x", "numeric"),), Outputs(kind, tensor, classes))


BINARY_MODEL, THREE = model("probabilities", "no", "yes"), model("probabilities", "a", "b", "c", tensor="p")
LABELS, CODES = model("labels", "on_time", "late"), model("labels", "1", "2")


def columns_of(table: Table) -> dict[str, list[object]]:
    return {name: column.tolist() for name, column in Table.of(table.columns, table.rows).columns.items()}


@pytest.mark.parametrize(
    ("schema", "predictions", "columns"),
    [
        (model("values"), [1, 2.5, None], {"prediction": [1, 2.5, NAN]}),
        (model("values"), [[1], [2]], {"prediction": [1, 2]}),
        (model("values"), [{"anything": 1}, {"anything": [2]}], {"prediction": [1, 2]}),
        (BINARY_MODEL, [[0.25, 0.75]], {"score": [0.75]}),
        (BINARY_MODEL, [0.75, 0.5], {"score": [0.75, 0.5]}),
        (BINARY_MODEL, [[0.75]], {"score": [0.75]}),
        (BINARY_MODEL, [{"yes": 0.75, "no": 0.25}], {"score": [0.75]}),
        (THREE, [[1, 2, 3], [4, 5, 6]], {"score:a": [1, 4], "score:b": [2, 5], "score:c": [3, 6]}),
        (THREE, [{"p": [1, 2, 3], "other": 0}], {"score:a": [1], "score:b": [2], "score:c": [3]}),
        (THREE, [{"c": 3, "b": 2, "a": 1}], {"score:a": [1], "score:b": [2], "score:c": [3]}),
        (THREE, [], {"score:a": [], "score:b": [], "score:c": []}),
        (LABELS, ["late", 0, 1.0, True], {"prediction": ["late", "on_time", "late", "late"]}),
        (LABELS, [7, "new", None], {"prediction": ["7", "new", None]}),
        (CODES, [1, 2.0, "1", 0], {"prediction": ["1", "2", "1", "0"]}),
    ],
)  # fmt: skip
def test_predictions_are_one_table_in_both_protocols(
    schema: ModelSchema, predictions: list[Json], columns: dict[str, list[object]]
) -> None:
    table = prediction_table(schema, v1.decode_response(json.dumps({"predictions": predictions}).encode()))
    types = [np.object_ if column.is_categorical else np.float64 for column in schema.predictions]
    expected = {name: np.array(values, kind) for (name, values), kind in zip(columns.items(), types, strict=True)}
    assert same_table(table, Table.of(expected, len(predictions)))
    if any(isinstance(one, dict | str) for one in predictions) or not predictions:
        return  # no tensor of numbers
    tensor = Tensor.of(schema.outputs.tensor or "output-0", np.array(predictions, np.float64))
    body, length = oip.encode_response(InferResponse((tensor,)), ALL)
    for header_length in (length, None):
        again = prediction_table(schema, oip.decode_response(body, header_length))
        assert same_table(again, table)


def test_labels_may_be_text_tensors() -> None:
    tensor = Tensor.of("output-0", np.array(["late", "on_time"], object))
    assert columns_of(prediction_table(LABELS, InferResponse((tensor,)))) == {"prediction": ["late", "on_time"]}


@pytest.mark.parametrize(
    ("schema", "predictions", "reason"),
    [
        (model("values"), [[1, 2]], "wrong_shape"),
        (model("values"), [1, [1, 2]], "wrong_shape"),
        (model("values"), ["x"], "wrong_type"),
        (model("values"), [{"a": 1, "b": 2}], "missing_column"),
        (model("values"), [{}], "missing_column"),
        (BINARY_MODEL, [[1, 2, 3]], "wrong_shape"),
        (THREE, [[1, 2]], "wrong_shape"),
        (LABELS, [["late", "on_time"]], "wrong_shape"),
    ],
)
def test_v1_predictions_that_are_not_the_model_s_are_typed_errors(
    schema: ModelSchema, predictions: list[Json], reason: str
) -> None:
    assert reason_of(lambda: prediction_table(schema, v1.PredictResponse(predictions))) == reason


@pytest.mark.parametrize(
    ("schema", "tensors", "reason"),
    [
        (THREE, [Tensor.of("q", np.ones((1, 3)))], "missing_column"),
        (THREE, [Tensor.of("p", np.ones((1, 3)))] * 2, "missing_column"),
        (model("values"), [Tensor.of("p", np.ones(1)), Tensor.of("q", np.ones(1))], "missing_column"),
        (model("values"), [], "missing_column"),
        (THREE, [Tensor.of("p", np.ones((1, 2)))], "wrong_shape"),
        (THREE, [Tensor.of("p", np.ones(3))], "wrong_shape"),
        (THREE, [Tensor.of("p", np.ones((1, 3, 1)))], "wrong_shape"),
        (model("values"), [Tensor.of("p", np.ones(()))], "wrong_shape"),
    ],
)
def test_v2_predictions_that_are_not_the_model_s_are_typed_errors(
    schema: ModelSchema, tensors: list[Tensor], reason: str
) -> None:
    assert reason_of(lambda: prediction_table(schema, InferResponse(tuple(tensors)))) == reason


@pytest.mark.parametrize(
    ("path", "protocol", "name"),
    [
        ("/v1/models/flights:predict", "v1", "flights"),
        ("/v1/models/flights/versions/3:predict", "v1", "flights"),
        ("/v2/models/flights/infer", "v2", "flights"),
        ("/v2/models/flights/versions/v10/infer", "v2", "flights"),
        ("/serving/demo/flights/v2/models/a%2Fb/infer/", "v2", "a/b"),
        ("/", None, ""),
        ("", None, ""),
        ("/score", None, ""),
        ("/api/v1/score", None, ""),
    ],
)
def test_a_path_says_protocol_and_model(path: str, protocol: str | None, name: str) -> None:
    assert route_of(path) == (protocol, name)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models",
        "/v1/models/flights",
        "/v1/models/flights:explain",
        "/v2",
        "/v2/health/ready",
        "/v2/models/flights",
        "/v2/models/flights/ready",
        "/v2/models/flights/explain",
        "/inference.GRPCInferenceService/ModelInfer",
    ],
)
def test_a_path_without_rows_is_a_typed_error(path: str) -> None:
    assert reason_of(lambda: route_of(path)) == "not_inference"


V1_ASKED, V1_ANSWERED = b'{"instances":[[1],[2]]}\n', b'{"predictions":[3,4]}'
V2_ASKED, V2_HEADER = oip.encode_request(InferRequest((Tensor.of("x", numeric(1, 2)),)), ALL)
V2_ANSWERED = oip.encode_response(InferResponse((Tensor.of("y", numeric(3, 4)),), "named")).body


@pytest.mark.parametrize("given_header", [V2_HEADER, None])
@pytest.mark.parametrize(
    ("path", "name"), [("/v2/models/flights/infer", "flights"), ("", "named"), ("/score", "named")]
)
def test_a_v2_exchange_is_decoded_with_and_without_path_and_header(
    path: str, name: str, given_header: int | None
) -> None:
    exchange = decode_exchange_bodies(ONE, V2_ASKED, V2_ANSWERED, path=path, request_header_length=given_header)
    assert (exchange.protocol, exchange.modelname) == ("v2", name)
    assert exchange.inputs is not None
    assert exchange.predictions is not None
    assert columns_of(exchange.inputs) == {"x": [1, 2]}
    assert columns_of(exchange.predictions) == {"prediction": [3, 4]}


@pytest.mark.parametrize(("path", "name"), [("/v1/models/flights:predict", "flights"), ("", ""), ("/score", "")])
def test_a_v1_exchange_is_decoded_with_and_without_path(path: str, name: str) -> None:
    exchange = decode_exchange_bodies(ONE, memoryview(V1_ASKED), memoryview(V1_ANSWERED), path=path)
    assert (exchange.protocol, exchange.modelname) == ("v1", name)
    assert exchange.inputs is not None
    assert exchange.predictions is not None
    assert columns_of(exchange.inputs) == {"x": [1, 2]}
    assert columns_of(exchange.predictions) == {"prediction": [3, 4]}


@pytest.mark.parametrize(
    ("request_body", "response_body", "protocol"),
    [
        (V1_ASKED, None, "v1"),
        (None, V1_ANSWERED, "v1"),
        (b'{"inputs":[[1],[2]]}', None, "v1"),
        (b'{"inputs":{"x":[1,2]}}', None, "v1"),
        (V2_ASKED, None, "v2"),
        (None, V2_ANSWERED, "v2"),
    ],
)
def test_half_an_exchange_of_unknown_path_is_decoded(
    request_body: bytes | None, response_body: bytes | None, protocol: str
) -> None:
    exchange = decode_exchange_bodies(ONE, request_body, response_body)
    assert exchange.protocol == protocol
    assert (exchange.inputs is None) == (request_body is None)
    assert (exchange.predictions is None) == (response_body is None)
    assert next(table.rows for table in (exchange.inputs, exchange.predictions) if table is not None) == 2


def test_what_the_caller_says_of_the_protocol_comes_first() -> None:
    assert decode_exchange_bodies(ONE, V1_ASKED, path="/v2/models/m/infer", protocol="v1").protocol == "v1"
    assert reason_of(lambda: decode_exchange_bodies(ONE, V1_ASKED, path="/v2/models/m/infer")) == "wrong_type"


@pytest.mark.parametrize(
    ("request_body", "response_body", "reason"),
    [
        (V1_ASKED, b'{"predictions":[3]}', "row_mismatch"),
        (V2_ASKED, oip.encode_response(InferResponse((Tensor.of("y", numeric(3)),))).body, "row_mismatch"),
        (V1_ASKED, V2_ANSWERED, "wrong_type"),
        (V1_ASKED, b'{"error":"oops"}', "error_response"),
        (V2_ASKED, b'{"error":"oops"}', "error_response"),
        (V1_ASKED + b"\x00", None, "wrong_length"),
        (b"{}", None, "unknown_protocol"),
        (b"{}", b"{}", "unknown_protocol"),
        (None, None, "unknown_protocol"),
        (b"", None, "not_json"),
        (b"\x00\x00\x00\x00\x05hello", None, "not_json"),  # gRPC
        (b"\x89PNG\r\n", None, "not_json"),
    ],
)
def test_bodies_that_are_no_exchange_are_typed_errors(
    request_body: bytes | None, response_body: bytes | None, reason: str
) -> None:
    assert reason_of(lambda: decode_exchange_bodies(ONE, request_body, response_body)) == reason


def test_a_wrong_header_length_is_a_typed_error_on_either_half() -> None:
    assert reason_of(lambda: decode_exchange_bodies(ONE, V2_ASKED, request_header_length=5)) == "truncated"
    assert (
        reason_of(lambda: decode_exchange_bodies(ONE, V2_ASKED, V2_ANSWERED, response_header_length=999)) == "truncated"
    )


def test_limits_reach_every_part() -> None:
    for limits in (Limits(json_bytes=5), Limits(depth=2), Limits(containers=1), Limits(elements=1)):
        for body in (V1_ASKED, V2_ASKED):
            with pytest.raises(TooLarge):
                decode_exchange_bodies(ONE, body, limits=limits)


def hostile_requests() -> list[bytes]:
    size = 1 << 20
    return [
        b'{"instances":[' + b'{"f0":1},' * (size // 9) + b'{"f0":1}]}',  # nine bytes for two hundred nulls
        b'{"instances":[{"f0":[' + b"1," * (size // 2) + b"1]}]}",
        b'{"instances":[' + b"[" * 60 + b"1," * (size // 2) + b"1" + b"]" * 60 + b"]}",
        b'{"instances":[' + b"[" * 30 + b"[]," * (size // 4) + b"1" + b"]" * 30 + b"]}",
        b'{"instances":[["' + b"x" * size + b'"' + b",1" * 199 + b"]]}",
    ]


@pytest.mark.parametrize("body", hostile_requests(), ids=range(len(hostile_requests())))
def test_a_hostile_megabyte_takes_little_time_and_memory(body: bytes) -> None:
    wide = ModelSchema(WHO, tuple(Feature(f"f{i}", "numeric") for i in range(200)), VALUES)
    tracemalloc.start()
    began = time.monotonic()
    with pytest.raises(PayloadError):
        decode_exchange_bodies(wide, body)
    took, peak = time.monotonic() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert took < 20
    assert peak < 384 << 20  # limits.elements of nulls are 128 MiB of pointers


leaves = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["x", "AA", ""])
keys = st.sampled_from(["carrier", "delay", "tail", "datatype", "x"])


@settings(max_examples=200)
@given(
    st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
    )
)
def test_any_instances_and_predictions_make_a_table_or_a_payload_error(value: Json) -> None:
    requests = [json.dumps({key: value}).encode() for key in ("instances", "inputs")]
    responses = [json.dumps({key: value}).encode() for key in ("predictions", "outputs")]
    halves = [(body, None) for body in requests] + [(None, body) for body in responses]
    for schema, (asked, answered) in itertools.product((MIXED, ONE, THREE, LABELS), halves):
        try:
            exchange = decode_exchange_bodies(schema, asked, answered)
        except PayloadError:
            continue
        table = exchange.inputs or exchange.predictions
        assert table is not None
        Table.of(table.columns, table.rows)  # checks every column
