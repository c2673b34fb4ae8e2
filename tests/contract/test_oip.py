"""The Open Inference Protocol: the specification's own bytes, round trips, another implementation, hostile bodies."""

import json
import struct
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tritonclient.http._utils import _get_inference_request

from servelens.contract.elements import DTYPE, Array
from servelens.contract.errors import PayloadError, TooLarge
from servelens.contract.limits import Limits
from servelens.contract.oip import (
    ALL,
    InferRequest,
    InferResponse,
    RequestedOutput,
    Tensor,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)

NUMERIC = [name for name in DTYPE if name not in {"BYTES", "BF16"}]
IN_JSON = [name for name in NUMERIC if name != "FP16"]

# inference_rest.md, "Inference Request Examples". The specification gives input1 one element for its shape of three and
# leaves a comma out behind the response's id; both are mended here.
SPEC_REQUEST = b"""{
  "id" : "42",
  "inputs" : [
    {
      "name" : "input0",
      "shape" : [ 2, 2 ],
      "datatype" : "UINT32",
      "data" : [ 1, 2, 3, 4 ]
    },
    {
      "name" : "input1",
      "shape" : [ 3 ],
      "datatype" : "BOOL",
      "data" : [ true, false, true ]
    }
  ],
  "outputs" : [
    {
      "name" : "output0"
    }
  ]
}"""
SPEC_RESPONSE = b"""{
  "id" : "42",
  "outputs" : [
    {
      "name" : "output0",
      "shape" : [ 3, 2 ],
      "datatype"  : "FP32",
      "data" : [ 1.0, 1.1, 2.0, 2.1, 3.0, 3.1 ]
    }
  ]
}"""
# extension_binary_data.md, "Examples", without the line breaks.
BINARY_REQUEST = (
    b'{"model_name":"mymodel","inputs":[{"name":"input0","shape":[2,2],"datatype":"UINT32",'
    b'"parameters":{"binary_data_size":16}},{"name":"input1","shape":[3],"datatype":"BOOL",'
    b'"parameters":{"binary_data_size":3}}],"outputs":[{"name":"output0","parameters":{"binary_data":true}}]}'
)
BINARY_RESPONSE = (
    b'{"outputs":[{"name":"output0","shape":[3,2],"datatype":"FP32","parameters":{"binary_data_size":24}}]}'
)


def reason_of(call: Callable[[], object]) -> str:
    with pytest.raises(PayloadError) as caught:
        call()
    return caught.value.reason


def assert_same(left: Tensor, right: Tensor) -> None:
    assert (left.name, left.datatype, left.shape) == (right.name, right.datatype, right.shape)
    assert left.parameters == right.parameters
    assert left.data.dtype == right.data.dtype
    assert left.data.shape == left.shape
    assert np.array_equal(left.data, right.data, equal_nan=left.data.dtype.kind == "f")


def request_of(*inputs: object, **members: object) -> bytes:
    return json.dumps({"inputs": list(inputs), **members}).encode()


def decoded(datatype: str, shape: list[int], data: object) -> list[Any]:
    document = {"name": "x", "datatype": datatype, "shape": shape, "data": data}
    values: list[Any] = decode_request(request_of(document)).inputs[0].data.tolist()
    return values


def in_binary(datatype: str, shape: list[Any], blob: bytes) -> list[Any]:
    document = {"name": "x", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(blob)}}
    values: list[Any] = decode_request(request_of(document) + blob).inputs[0].data.tolist()
    return values


def test_the_specification_request_is_read() -> None:
    request = decode_request(SPEC_REQUEST)
    assert (request.id, request.model_name, request.parameters) == ("42", "", {})
    assert [output.name for output in request.outputs] == ["output0"]
    assert_same(request.inputs[0], Tensor.of("input0", np.array([[1, 2], [3, 4]], np.uint32)))
    assert_same(request.inputs[1], Tensor.of("input1", np.array([True, False, True])))


def test_the_specification_response_is_read() -> None:
    response = decode_response(SPEC_RESPONSE)
    assert (response.id, response.model_name, response.model_version) == ("42", "", "")
    assert_same(response.outputs[0], Tensor.of("output0", np.array([[1, 1.1], [2, 2.1], [3, 3.1]], np.float32)))


@pytest.mark.parametrize("known", [True, False])
def test_the_extension_examples_are_read_and_written(known: bool) -> None:
    blob = struct.pack("<4I3?", 1, 2, 3, 4, True, False, True)
    request = decode_request(BINARY_REQUEST + blob, len(BINARY_REQUEST) if known else None)
    assert request.model_name == "mymodel"
    assert request.wants_binary("output0")
    assert_same(request.inputs[0], Tensor.of("input0", np.array([[1, 2], [3, 4]], np.uint32)))
    assert_same(request.inputs[1], Tensor.of("input1", np.array([True, False, True])))
    encoded = encode_request(request, ALL)
    assert encoded.header_length is not None
    assert json.loads(encoded.body[: encoded.header_length]) == json.loads(BINARY_REQUEST)
    assert encoded.body[encoded.header_length :] == blob

    floats = struct.pack("<6f", 1, 1.1, 2, 2.1, 3, 3.1)
    response = decode_response(BINARY_RESPONSE + floats, len(BINARY_RESPONSE) if known else None)
    assert_same(response.outputs[0], decode_response(SPEC_RESPONSE).outputs[0])
    assert encode_response(response, ALL) == (BINARY_RESPONSE + floats, len(BINARY_RESPONSE))


def test_a_request_is_written_without_empty_members() -> None:
    request = InferRequest((Tensor.of("x", np.array([[1.5, np.nan]])),), parameters={"binary_data_output": True})
    body, length = encode_request(request, nested=True)
    assert length is None
    assert body == (
        b'{"parameters":{"binary_data_output":true},'
        b'"inputs":[{"name":"x","shape":[1,2],"datatype":"FP64","data":[[1.5,null]]}]}'
    )


def test_everything_but_tensors_survives_a_round_trip() -> None:
    tensor = Tensor("x", "INT8", (1,), np.array([1], np.int8), {"content_type": "np"})
    outputs = (RequestedOutput("a", {"binary_data": False}), RequestedOutput("b"))
    request = decode_request(encode_request(InferRequest((tensor,), "7", outputs, {"priority": 3}, "m")).body)
    assert (request.id, request.parameters, request.model_name) == ("7", {"priority": 3}, "m")
    assert [(output.name, output.parameters) for output in request.outputs] == [
        ("a", {"binary_data": False}),
        ("b", {}),
    ]
    assert request.inputs[0].parameters == {"content_type": "np"}
    answer = InferResponse((tensor,), "m", "3", "7", {"sequence_id": 1})
    response = decode_response(*encode_response(answer, ["x"]))
    assert (response.model_name, response.model_version, response.id) == ("m", "3", "7")
    assert response.parameters == {"sequence_id": 1}
    assert response.outputs[0].parameters == {"content_type": "np"}


@pytest.mark.parametrize(
    ("default", "own", "wanted"),
    [
        (None, None, False),
        (True, None, True),
        (True, False, False),
        (False, True, True),
        (None, True, True),
        (1, 1, False),
    ],
)
def test_an_output_overrides_the_request_on_being_binary(default: object, own: object, wanted: bool) -> None:
    body = request_of(
        parameters={} if default is None else {"binary_data_output": default},
        outputs=[{"name": "y", "parameters": {} if own is None else {"binary_data": own}}],
    )
    assert decode_request(body).wants_binary("y") is wanted
    assert decode_request(body).wants_binary("other") is (default is True)


def test_null_members_are_absent() -> None:
    body = b'{"model_name":"m","model_version":null,"id":null,"parameters":null,"outputs":[]}'
    response = decode_response(body)
    assert (response.model_name, response.model_version, response.id, response.parameters) == ("m", "", "", {})


@st.composite
def tensors(draw: st.DrawFn, datatypes: list[str], *, finite: bool) -> Tensor:
    datatype = draw(st.sampled_from(datatypes))
    shape = draw(arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    options: dict[str, Any] = {"allow_infinity": False} if finite and datatype.startswith("FP") else {}
    values = arrays.from_dtype(DTYPE[datatype], **options)
    return Tensor.of("x", np.asarray(draw(arrays.arrays(DTYPE[datatype], shape, elements=values))), datatype)


@given(tensors(IN_JSON, finite=True), st.booleans())
def test_every_datatype_survives_json(tensor: Tensor, nested: bool) -> None:
    encoded = encode_request(InferRequest((tensor,)), nested=nested)
    assert encoded.header_length is None
    assert_same(decode_request(encoded.body).inputs[0], tensor)


@given(tensors(NUMERIC, finite=False), st.booleans())
def test_every_datatype_survives_binary(tensor: Tensor, known: bool) -> None:
    body, length = encode_response(InferResponse((tensor,)), ALL)
    assert_same(decode_response(body, length if known else None).outputs[0], tensor)
    assert decode_response(body).outputs[0].data.tobytes() == tensor.data.tobytes()


@given(tensors(IN_JSON, finite=True), tensors(NUMERIC, finite=False), tensors(IN_JSON, finite=True))
def test_json_and_binary_may_be_mixed_in_one_body(first: Tensor, second: Tensor, third: Tensor) -> None:
    named = [Tensor(f"t{i}", t.datatype, t.shape, t.data) for i, t in enumerate((first, second, third))]
    body, length = encode_request(InferRequest(tuple(named)), {"t1"})
    for header_length in (length, None):
        for got, sent in zip(decode_request(memoryview(body), header_length).inputs, named, strict=True):
            assert_same(got, sent)


@given(st.lists(st.binary(max_size=5), max_size=5))
def test_bytes_survive_binary(values: list[bytes]) -> None:
    tensor = Tensor.of("x", np.array([*values, None], object)[:-1])
    body, length = encode_request(InferRequest((tensor,)), ALL)
    assert decode_request(body, length).inputs[0].data.tolist() == values
    assert body[length or 0 :] == b"".join(struct.pack("<I", len(value)) + value for value in values)


@given(st.lists(st.none() | st.text(max_size=5), max_size=4))
def test_text_and_nulls_survive_json(values: list[str | None]) -> None:
    tensor = Tensor.of("x", np.array([*values, None], object)[:-1])
    back = decode_request(encode_request(InferRequest((tensor,))).body).inputs[0]
    assert back.data.tolist() == [None if value is None else value.encode() for value in values]


def test_text_arrays_are_bytes() -> None:
    tensor = Tensor.of("x", np.array([["é", "b"]]))
    assert (tensor.datatype, tensor.shape, tensor.data.tolist()) == ("BYTES", (1, 2), [["é".encode(), b"b"]])
    assert json.loads(encode_request(InferRequest((tensor,)), nested=True).body)["inputs"][0]["data"] == [["é", "b"]]


def test_bfloat16_is_rounded_to_nearest_even_as_ml_dtypes_does() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    bits = np.random.default_rng(5).integers(0, 2**32, 4000, np.uint32)
    special = np.array([np.inf, -np.inf, np.nan, 0, -0.0, 1.00390625, 1.01171875], "<f4")
    values = np.concatenate([bits.view("<f4"), special])
    body, length = encode_request(InferRequest((Tensor.of("x", values, "BF16"),)), ALL)
    with np.errstate(all="ignore"):
        expected = values.astype(ml_dtypes.bfloat16)
    back = decode_request(body, length).inputs[0]
    assert back.datatype == "BF16"
    assert np.array_equal(back.data, expected.astype(np.float32), equal_nan=True)
    assert np.array_equal(np.frombuffer(body[length or 0 :], "<u2")[-7:], expected.view("<u2")[-7:])


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_floats_are_read_from_json_but_never_written_so(datatype: str) -> None:
    assert decoded(datatype, [3], [1, 0.5, None])[:2] == [1.0, 0.5]
    assert decoded(datatype, [1], [1.001]) == [1.0009765625 if datatype == "FP16" else 1.0]
    tensor = Tensor.of("x", np.ones(1, np.float32), datatype)
    assert reason_of(lambda: encode_request(InferRequest((tensor,)))) == "wrong_type"


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "read"),
    [
        ("FP64", [2, 2], [[1, 2], [3, 4]], [[1, 2], [3, 4]]),
        ("FP64", [2, 2], [1, 2, 3, 4], [[1, 2], [3, 4]]),
        ("FP64", [2, 2], [[1, 2, 3, 4]], [[1, 2], [3, 4]]),  # row-major, whatever the nesting
        ("FP64", [1], [True], [1.0]),
        ("FP32", [1], [1e300], [float("inf")]),
        ("INT64", [2], [3.0, True], [3, 1]),
        ("INT64", [2], [-(2**63), 2**63 - 1], [-(2**63), 2**63 - 1]),
        ("UINT64", [1], [2**64 - 1], [2**64 - 1]),
        ("BOOL", [3], [0, 1, True], [False, True, True]),
        ("BYTES", [2], ["a", None], [b"a", None]),
        ("FP64", [0, 3], [], []),
        ("FP64", [2, 0], [[], []], [[], []]),
        ("FP64", [], [7], 7.0),
    ],
)
def test_json_data_is_read_as_servers_read_it(datatype: str, shape: list[int], data: object, read: object) -> None:
    assert decoded(datatype, shape, data) == read


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "reason"),
    [
        ("FP64", [2], [1], "wrong_shape"),
        ("FP64", [1], [1, 2], "wrong_shape"),
        ("FP64", [3], [[1, 2], 3], "wrong_shape"),
        ("FP64", [2], [3, [1, 2]], "wrong_type"),
        ("FP64", [2], [[1], [[2]]], "wrong_type"),
        ("FP64", [1], ["1.5"], "wrong_type"),
        ("FP64", [1], [{}], "wrong_type"),
        ("FP64", [1], "x", "wrong_type"),
        ("FP64", [1], None, "wrong_type"),
        ("INT32", [1], [1.5], "wrong_type"),
        ("INT32", [1], [None], "wrong_type"),
        ("INT32", [1], ["1"], "wrong_type"),
        ("UINT8", [1], [256], "out_of_range"),
        ("UINT8", [1], [-1], "out_of_range"),
        ("INT64", [1], [2**63], "out_of_range"),
        ("UINT64", [1], [2**64], "out_of_range"),
        ("BOOL", [1], [2], "out_of_range"),
        ("BOOL", [1], [None], "wrong_type"),
        ("BYTES", [1], [1], "wrong_type"),
        ("FP8", [1], [1], "wrong_type"),
        ("STRING", [1], ["a"], "wrong_type"),
        (None, [1], [1], "wrong_type"),
        ("FP64", None, [1], "wrong_shape"),
        ("FP64", [-1], [1], "wrong_shape"),
        ("FP64", [1.0], [1], "wrong_shape"),
        ("FP64", [True], [1], "wrong_shape"),
        ("FP64", ["1"], [1], "wrong_shape"),
        ("FP64", [2**64], [1], "wrong_shape"),  # JSON reads it as a float: no dimension has that many
        ("FP64", [2**40, 2**40], [], "too_large"),
        ("FP64", [2**63, 0], [], "too_large"),
        ("FP64", [2**32, 2**32, 0], [], "too_large"),
        ("FP64", [2**62, 4], [], "too_large"),  # 0 modulo 2**64
        ("FP64", [1] * 33, [1], "too_large"),
    ],
)
def test_json_data_that_is_not_what_it_says_is_a_typed_error(
    datatype: object, shape: object, data: object, reason: str
) -> None:
    body = request_of({"name": "x", "datatype": datatype, "shape": shape, "data": data})
    assert reason_of(lambda: decode_request(body)) == reason


@pytest.mark.parametrize(
    ("datatype", "shape", "blob", "reason"),
    [
        ("FP32", [2], bytes(7), "wrong_length"),
        ("FP32", [2], bytes(9), "wrong_length"),
        ("FP32", [2], b"", "wrong_length"),
        ("FP64", [2**40, 2**40], b"", "too_large"),
        ("FP64", [2**62, 4], b"", "too_large"),
        ("FP32", [-1, -2], bytes(8), "wrong_shape"),
        ("BYTES", [1], bytes(3), "wrong_length"),
        ("BYTES", [1], struct.pack("<I", 5) + b"abcd", "truncated"),
        ("BYTES", [1], struct.pack("<I", 2**32 - 1), "truncated"),
        ("BYTES", [2], struct.pack("<I", 4) + b"abcd", "truncated"),
        ("BYTES", [2], struct.pack("<I", 2) + b"abcd", "truncated"),
        ("BYTES", [1], struct.pack("<I", 1) + b"ab", "wrong_length"),
        ("BYTES", [0], b"a", "wrong_length"),
        ("BYTES", [2**24], bytes(64), "wrong_length"),
        ("BYTES", [2**25], bytes(64), "too_large"),
    ],
)
def test_binary_data_that_is_not_what_it_says_is_a_typed_error(
    datatype: str, shape: list[Any], blob: bytes, reason: str
) -> None:
    assert reason_of(lambda: in_binary(datatype, shape, blob)) == reason


def test_binary_booleans_are_true_unless_zero() -> None:
    assert in_binary("BOOL", [3], b"\x00\x01\xff") == [False, True, True]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"inputs": [], "id": 7}, "wrong_type"),
        ({"inputs": [], "parameters": [1]}, "wrong_type"),
        ({"inputs": [], "outputs": {"name": "y"}}, "wrong_type"),
        ({"inputs": [], "outputs": [{"name": 1}]}, "wrong_type"),
        ({"inputs": [], "outputs": ["y"]}, "wrong_type"),
        ({"inputs": [], "outputs": [{"name": "y", "parameters": 1}]}, "wrong_type"),
        ({"inputs": [{"name": 1, "datatype": "FP64", "shape": [1], "data": [1]}]}, "wrong_type"),
        ({"error": "no such model"}, "error_response"),
    ],
)
def test_a_malformed_request_is_a_typed_error(document: object, reason: str) -> None:
    assert reason_of(lambda: decode_request(json.dumps(document).encode())) == reason


def test_an_error_response_is_told_apart() -> None:
    assert reason_of(lambda: decode_response(b'{"error":"out of memory"}')) == "error_response"


def test_limits_are_parameters() -> None:
    body = request_of({"name": "x", "datatype": "FP64", "shape": [3], "data": [1, 2, 3]})
    with pytest.raises(TooLarge):
        decode_request(body, limits=Limits(elements=2))
    assert decode_request(body, limits=Limits(elements=3)).inputs[0].shape == (3,)


@pytest.mark.parametrize(
    ("tensor", "binary", "reason"),
    [
        (Tensor.of("x", np.array([np.inf])), False, "non_finite"),
        (Tensor.of("x", np.array([b"\xff"], object)), False, "not_utf8"),
        (Tensor.of("x", np.array([None], object)), True, "wrong_type"),
        (Tensor.of("x", np.array([3], object)), False, "wrong_type"),
        (Tensor("x", "FP64", (1,), np.ones(1), {"p": object()}), False, "wrong_type"),  # type: ignore[dict-item]
    ],
)
def test_what_has_no_form_on_the_wire_is_a_typed_error(tensor: Tensor, binary: bool, reason: str) -> None:
    assert reason_of(lambda: encode_request(InferRequest((tensor,)), binary)) == reason


@pytest.mark.parametrize(
    ("data", "datatype"),
    [
        (np.ones(1, np.complex128), None),
        (np.array(["2020-01-01"], "M8[D]"), None),
        (np.ones(1), "INT64"),
        (np.ones(1), "BYTES"),
        (np.array([b"a"], object), "FP64"),
        (np.ones(1), "FP8"),
    ],
)
def test_an_array_the_protocol_cannot_carry_makes_no_tensor(data: Array, datatype: str | None) -> None:
    assert reason_of(lambda: Tensor.of("x", data, datatype)) == "wrong_type"


def test_a_big_endian_or_strided_array_is_sent_little_endian_and_row_major() -> None:
    data = np.arange(6, dtype=">i4").reshape(2, 3).T
    body, length = encode_request(InferRequest((Tensor.of("x", data),)), ALL)
    assert body[length or 0 :] == struct.pack("<6i", 0, 3, 1, 4, 2, 5)


def triton_input(name: str, data: Array, datatype: str, *, binary: bool) -> triton.InferInput:
    return triton.InferInput(name, list(data.shape), datatype).set_data_from_numpy(data, binary_data=binary)


TRITON_DATA = {
    datatype: np.arange(6).reshape(2, 3).astype(DTYPE[datatype])
    for datatype in DTYPE
    if datatype not in {"BYTES", "BF16"}
} | {"BYTES": np.array([["a", "bc", ""], ["é", "x" * 300, "1"]], object)}


@pytest.mark.parametrize("datatype", TRITON_DATA)
def test_triton_clients_and_we_write_the_same_binary_request(datatype: str) -> None:
    data = TRITON_DATA[datatype]
    theirs, length = _get_inference_request(
        [triton_input("x", data, datatype, binary=True), triton_input("y", np.ones(2, "i4"), "INT32", binary=False)],
        "7", [triton.InferRequestedOutput("out", binary_data=True)], 0, False, False, 0, None, None,
    )  # fmt: skip
    request = InferRequest(
        (Tensor.of("x", data, datatype), Tensor.of("y", np.ones(2, "i4"))),
        "7",
        (RequestedOutput("out", {"binary_data": True}),),
    )
    ours = encode_request(request, {"x"})
    assert ours.body[ours.header_length or 0 :] == theirs[length:]
    assert json.loads(ours.body[: ours.header_length]) == json.loads(theirs[:length])
    for header_length in (length, None):
        read = decode_request(theirs, header_length)
        assert read.wants_binary("out")
        for got, sent in zip(read.inputs, request.inputs, strict=True):
            assert_same(got, sent)


@pytest.mark.parametrize("datatype", TRITON_DATA)
def test_triton_clients_read_our_responses(datatype: str) -> None:
    tensor = Tensor.of("x", TRITON_DATA[datatype], datatype)
    body, length = encode_response(InferResponse((tensor,), "m"), ALL)
    assert length is not None
    read = triton.InferResult.from_response_body(body, header_length=length).as_numpy("x")
    assert read.tolist() == tensor.data.tolist()


def hostile_bodies() -> list[bytes]:
    size = 1 << 20
    wide = {"name": "x", "datatype": "FP64", "shape": [2**40, 2**40]}
    liar = {"name": "x", "datatype": "BYTES", "shape": [2**18], "parameters": {"binary_data_size": size}}
    long_text = {"name": "x", "datatype": "FP64", "shape": [1001], "data": ["x" * size] + [1.0] * 1000}
    return [
        request_of(wide | {"data": []}),
        request_of(wide | {"parameters": {"binary_data_size": 0}}),
        request_of(liar) + struct.pack("<I", 2**31) * (size // 4),
        request_of(long_text),  # numpy would make a thousand copies of the longest
        request_of({"name": "x", "datatype": "FP64", "shape": [1], "data": None}).replace(
            b"null", b"[" * 60 + b"1," * (size // 2) + b"1" + b"]" * 60
        ),
        request_of(*[wide] * 4000),
    ]


@pytest.mark.parametrize("body", hostile_bodies(), ids=range(len(hostile_bodies())))
def test_a_hostile_body_takes_little_time_and_memory(body: bytes) -> None:
    tracemalloc.start()
    began = time.monotonic()
    with pytest.raises(PayloadError):
        decode_request(body)
    took, peak = time.monotonic() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert took < 5
    assert peak < 64 << 20


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_body_raises_nothing_but_payload_errors(data: st.DataObject) -> None:
    sent = (Tensor.of("x", np.arange(4, dtype="i2")), Tensor.of("y", np.array([b"ab", b""], object)))
    body = bytearray(encode_request(InferRequest(sent), {"y"} if data.draw(st.booleans()) else ()).body)
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    for damaged in (bytes(body), bytes(body[:cut])):
        try:
            request = decode_request(damaged)
        except PayloadError:
            continue
        assert all(tensor.data.shape == tensor.shape for tensor in request.inputs)
