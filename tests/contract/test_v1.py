"""The V1 protocol's bodies; what their rows mean is for test_rows."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servelens.contract.errors import PayloadError, TooLarge
from servelens.contract.jsontext import Json
from servelens.contract.limits import Limits
from servelens.contract.v1 import (
    PredictRequest,
    PredictResponse,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)

scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
instances = st.recursive(
    scalars | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        (b'{"instances":[[6.8,2.8,4.8,1.4],[6.0,3.4,4.5,1.6]]}', [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]),
        (b'{"inputs":[[1],[2]]}', [[1], [2]]),
        (b'{"instances":[[9]],"inputs":[[1]]}', [[1]]),  # KServe looks for inputs first
        (b'{"instances":[1,"a",null]}', [1, "a", None]),
        (b'{"instances":[{"a":1,"b":"x"}]}', [{"a": 1, "b": "x"}]),
        (b'{"inputs":{"a":[1,2],"b":["x","y"]}}', [{"a": [1, 2], "b": ["x", "y"]}]),  # TensorFlow Serving's columns
        (b'{"instances":[]}', []),
    ],
)
def test_the_forms_of_a_request_are_read(body: bytes, rows: list[Json]) -> None:
    assert decode_request(body) == PredictRequest(rows)


def test_the_signature_is_kept() -> None:
    request = decode_request(b'{"signature_name":"serving_default","instances":[1]}')
    assert request == PredictRequest([1], "serving_default")
    assert decode_request(encode_request(request)) == request


@given(st.lists(instances, max_size=4))
def test_bodies_survive_a_round_trip(rows: list[Json]) -> None:
    assert decode_request(encode_request(PredictRequest(rows))) == PredictRequest(rows)
    assert decode_response(encode_response(PredictResponse(rows))) == PredictResponse(rows)
    assert json.loads(encode_response(PredictResponse(rows))) == {"predictions": rows}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{}", "wrong_type"),
        (b'{"instances":7}', "wrong_type"),
        (b'{"instances":null}', "wrong_type"),
        (b'{"instances":[1],"instances":[2]}', "duplicate_key"),
        (b'{"instances":[NaN]}', "non_finite"),
        (b'{"instances":[1]', "truncated"),
        (b"[1]", "wrong_type"),
    ],
)
def test_what_is_no_request_is_a_typed_error(body: bytes, reason: str) -> None:
    with pytest.raises(PayloadError) as caught:
        decode_request(body)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"error":"no such model"}', "error_response"),
        (b'{"message":"timeout","batchId":"","predictions":null}', "wrong_type"),  # KServe's batcher, on an error
        (b'{"predictions":{"a":1}}', "wrong_type"),
        (b'{"outputs":[1]}', "wrong_type"),
    ],
)
def test_what_is_no_response_is_a_typed_error(body: bytes, reason: str) -> None:
    with pytest.raises(PayloadError) as caught:
        decode_response(body)
    assert caught.value.reason == reason


def test_the_batcher_response_is_a_response() -> None:
    assert decode_response(b'{"message":"","batchId":"a-b","predictions":[1,0]}') == PredictResponse([1, 0])


def test_limits_are_a_parameter() -> None:
    with pytest.raises(TooLarge):
        decode_request(b'{"instances":[1]}', Limits(json_bytes=10))


def test_a_value_json_has_no_form_for_is_a_typed_error() -> None:
    with pytest.raises(PayloadError):
        encode_request(PredictRequest([object()]))  # type: ignore[list-item]
