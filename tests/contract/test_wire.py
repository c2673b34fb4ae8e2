"""Strict JSON and the cutting open of V2 bodies: no numpy anywhere near."""

import json
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servelens.contract.errors import PayloadError, TooLarge
from servelens.contract.jsontext import Json, json_end, parse_json, parse_object
from servelens.contract.limits import Limits
from servelens.contract.wire import ITEM_SIZE, JSON_KIND, Side, parse_header_length, read_header, split_body

# extension_binary_data.md, "Examples": 16 + 3 bytes behind the JSON, 24 behind the response's.
REQUEST_JSON = b"""{
  "model_name" : "mymodel",
  "inputs" : [
    {
      "name" : "input0",
      "shape" : [ 2, 2 ],
      "datatype" : "UINT32",
      "parameters" : {
        "binary_data_size" : 16
      }
    },
    {
      "name" : "input1",
      "shape" : [ 3 ],
      "datatype" : "BOOL",
      "parameters" : {
        "binary_data_size" : 3
      }
    }
  ],
  "outputs" : [
    {
      "name" : "output0",
      "parameters" : {
        "binary_data" : true
      }
    }
  ]
}"""
RESPONSE_JSON = b"""{
  "outputs" : [
    {
      "name" : "output0",
      "shape" : [ 3, 2 ],
      "datatype"  : "FP32",
      "parameters" : {
        "binary_data_size" : 24
      }
    }
  ]
}"""

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    # Colons, braces, quotes and escapes inside strings are what the counting must not be fooled by.
    | st.text(alphabet=st.sampled_from(':{}[],"\\ aé\n\u2028😀'), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(':{"a\\', max_size=3), inner, max_size=4),
    max_leaves=20,
)


def reason_of(call: Callable[[], object]) -> str:
    with pytest.raises(PayloadError) as caught:
        call()
    return caught.value.reason


def test_every_datatype_has_a_size_and_a_json_kind() -> None:
    assert ITEM_SIZE.keys() == JSON_KIND.keys()
    assert {name for name, size in ITEM_SIZE.items() if size is None} == {"BYTES"}


@pytest.mark.parametrize("given_length", [True, False], ids=["with the header", "without it"])
@pytest.mark.parametrize("wrap", [bytes, memoryview])
@pytest.mark.parametrize(
    ("side", "text", "spans"),
    [("inputs", REQUEST_JSON, [(0, 16), (16, 19)]), ("outputs", RESPONSE_JSON, [(0, 24)])],
)
def test_the_extension_examples_are_cut_where_the_specification_says(
    side: Side, text: bytes, spans: list[tuple[int, int]], wrap: Callable[[bytes], bytes], given_length: bool
) -> None:
    body = text + bytes(range(spans[-1][1]))
    layout = split_body(wrap(body), side, len(text) if given_length else None)
    assert layout.header == json.loads(text)
    assert layout.header_length == len(text)
    assert list(layout.spans) == [(len(text) + start, len(text) + stop) for start, stop in spans]


def test_a_body_of_json_alone_has_no_spans() -> None:
    body = b'{"inputs":[{"name":"a","shape":[1],"datatype":"FP32","data":[1]}]}\n'
    layout = split_body(body, "inputs")
    assert (layout.header_length, list(layout.spans)) == (len(body), [None])


def test_json_and_binary_tensors_may_be_mixed() -> None:
    text = json.dumps(
        {
            "inputs": [
                {"name": "a", "shape": [1], "datatype": "INT8", "parameters": {"binary_data_size": 1}},
                {"name": "b", "shape": [1], "datatype": "INT8", "data": [7], "parameters": {"content_type": "np"}},
                {"name": "c", "shape": [0], "datatype": "INT8", "parameters": {"binary_data_size": 0}},
                {"name": "d", "shape": [2], "datatype": "INT8", "parameters": {"binary_data_size": 2}},
            ]
        }
    ).encode()
    n = len(text)
    for length in (n, None):
        assert list(split_body(text + b"xyz", "inputs", length).spans) == [
            (n, n + 1),
            None,
            (n + 1, n + 1),
            (n + 1, n + 3),
        ]


def test_without_the_length_blank_space_behind_the_json_is_not_data_but_with_it_it_is_an_error() -> None:
    body = RESPONSE_JSON + b"\n" + b" " * 24
    layout = split_body(body, "outputs")
    assert list(layout.spans) == [(len(RESPONSE_JSON) + 1, len(body))]
    assert reason_of(lambda: split_body(body, "outputs", len(RESPONSE_JSON))) == "wrong_length"


@given(st.binary(max_size=40), st.sampled_from([b"}", b"]", b"\n", b'"', b""]))
def test_the_end_of_the_json_is_found_whatever_bytes_follow(noise: bytes, tail: bytes) -> None:
    blob = noise + tail
    text = json.dumps(
        {
            "inputs": [
                {"name": '}]\\"é:', "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(blob)}}
            ]
        }
    ).encode()
    layout = split_body(text + blob, "inputs")
    assert list(layout.spans) == [(len(text), len(text) + len(blob))]


@given(json_values)
def test_the_end_of_any_object_is_where_it_ends(value: Json) -> None:
    text = json.dumps({"x": value}, ensure_ascii=False).encode()
    assert json_end(text + b'{"]}\x00') == len(text)


@given(json_values)
def test_what_json_can_say_is_parsed_as_the_standard_library_does(value: Json) -> None:
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(memoryview(json.dumps(value, indent=2, ensure_ascii=False).encode())) == value


@given(json_values, st.text(':{"a\\', max_size=3), st.integers(0, 3))
def test_a_duplicate_key_is_found_at_any_depth(value: Json, key: str, depth: int) -> None:
    name = json.dumps(key)
    text = f"{{{name} : {json.dumps(value)}, {name}:1}}"
    for _ in range(depth):
        text = f'[{{"in:side": [{text}, "a:b"]}}]'
    assert reason_of(lambda: parse_json(text.encode())) == "duplicate_key"


def test_keys_are_equal_when_they_are_equal_after_unescaping() -> None:
    assert reason_of(lambda: parse_json(b'{"a":1,"\\u0061":2}')) == "duplicate_key"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not_json"),
        (b"  ", "not_json"),
        (b"hello", "not_json"),
        (b"\x1f\x8b\x08\x00", "not_json"),  # gzip
        (b'{"a":1,}', "not_json"),
        (b'{"a":1}{"b":2}', "not_json"),
        (b'{"a":"\x01"}', "not_json"),
        (b'{"a":"\\ud800"}', "not_json"),
        (b'{"a":1e999}', "not_json"),
        (b'\xef\xbb\xbf{"a":1}', "not_json"),  # a byte order mark, RFC 8259 section 8.1
        (b'{"a":"\xff"}', "not_utf8"),
        (b'{"a":"\xc3"}', "not_utf8"),
        (b'{"a":"\xed\xa0\x80"}', "not_utf8"),  # a surrogate
        (b'{"a":[1,NaN]}', "non_finite"),
        ('{"é":[1,Infinity]}'.encode(), "non_finite"),
        (b'{"a":-Infinity}', "non_finite"),
        (b'{"a":[1,2', "truncated"),
        (b'{"a":"b', "truncated"),
        (b'{"a":"b\\', "truncated"),
    ],
)
def test_what_is_not_json_is_a_typed_error(text: bytes, reason: str) -> None:
    assert reason_of(lambda: parse_object(text)) == reason


def test_a_root_that_is_no_object_is_a_typed_error() -> None:
    assert reason_of(lambda: parse_object(b"[1]")) == "wrong_type"
    assert reason_of(lambda: read_header(b"[1]")) == "wrong_type"


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("depth", [65, 1_000, 100_000])
def test_nesting_is_bounded(opening: bytes, depth: int, closed: bool) -> None:
    closing = bytes(reversed(opening)).translate(bytes.maketrans(b"[{", b"]}"), b'"a:')
    text = opening * depth + (b"1" + closing * depth if closed else b"")
    with pytest.raises(TooLarge):
        parse_json(text)
    with pytest.raises(TooLarge):
        json_end(text)


def test_the_deepest_nesting_allowed_is_the_limit() -> None:
    limits = Limits(depth=5)
    # More openers than the limit, so that the value itself is looked at.
    assert parse_json(b"[[[[[1]]]],[],[],[]]", limits=limits) == [[[[[1]]]], [], [], []]
    with pytest.raises(TooLarge):
        parse_json(b"[[[[[[1]]]]],[],[],[]]", limits=limits)
    with pytest.raises(TooLarge):
        parse_json(b'[[[[{"a":[]}]]],[],[],[]]', limits=limits)


def test_size_and_containers_are_bounded() -> None:
    with pytest.raises(TooLarge):
        parse_json(b"[1,2,3]", limits=Limits(json_bytes=6))
    with pytest.raises(TooLarge):
        parse_json(b"[[],[]]", limits=Limits(containers=2))
    with pytest.raises(TooLarge):
        read_header(b'{"a":"' + b"x" * 100, limits=Limits(json_bytes=50))
    assert read_header(b'{"a":1}' + b"\x00" * 100, limits=Limits(json_bytes=50)) == ({"a": 1}, 7)


@pytest.mark.parametrize("value", ["", "-1", "+1", " 1", "1_0", "١", "0x10", "1" * 19])
def test_a_length_header_is_decimal_digits_alone(value: str) -> None:
    assert reason_of(lambda: parse_header_length(value)) == "wrong_length"


def test_a_length_header_is_read() -> None:
    assert parse_header_length("0123") == 123


def tensors_of(*tensors: Json) -> bytes:
    return json.dumps({"inputs": list(tensors)}).encode()


@pytest.mark.parametrize(
    ("body", "length", "reason"),
    [
        (REQUEST_JSON + bytes(19), len(REQUEST_JSON) - 1, "truncated"),
        (REQUEST_JSON + bytes(19), len(REQUEST_JSON) + 1, "not_json"),
        (REQUEST_JSON + bytes(19), 0, "wrong_length"),
        (REQUEST_JSON + bytes(19), -5, "wrong_length"),
        (REQUEST_JSON + bytes(19), 10**12, "truncated"),
        (REQUEST_JSON + bytes(18), None, "truncated"),
        (REQUEST_JSON + bytes(20), None, "wrong_length"),
        (REQUEST_JSON + bytes(20), len(REQUEST_JSON), "wrong_length"),
        (REQUEST_JSON[:200], None, "truncated"),
        (b'{"error":"no such model"}', None, "error_response"),
        (b"{}", None, "wrong_type"),
        (b'{"inputs":{}}', None, "wrong_type"),
        (tensors_of(3), None, "wrong_type"),
        (tensors_of({"parameters": [1]}), None, "wrong_type"),
        (tensors_of({"parameters": {"binary_data_size": -1}}), None, "wrong_type"),
        (tensors_of({"parameters": {"binary_data_size": True}}), None, "wrong_type"),
        (tensors_of({"parameters": {"binary_data_size": 1.0}}), None, "wrong_type"),
        (tensors_of({"parameters": {"binary_data_size": 2**70}}), None, "wrong_type"),
        (tensors_of({"parameters": {"binary_data_size": 2**63}}), None, "truncated"),
        (tensors_of({"parameters": {"binary_data_size": 0}, "data": []}), None, "malformed"),
        (tensors_of({"parameters": {"shared_memory_region": "r"}}), None, "shared_memory"),
    ],
)
def test_lengths_that_do_not_add_up_are_typed_errors(body: bytes, length: int | None, reason: str) -> None:
    assert reason_of(lambda: split_body(body, "inputs", length)) == reason


def test_the_number_of_tensors_is_bounded() -> None:
    with pytest.raises(TooLarge):
        split_body(tensors_of({}, {}, {}), "inputs", limits=Limits(tensors=2))


def hostile_texts() -> list[bytes]:
    size = 1 << 20
    return [
        b'{"' + b"\\" * size,
        b'{"' + b'\\"' * (size // 2),
        b'{"a":"' + b":" * size + b'"',
        b"{" + b'""' * (size // 2),
        b"{" + b":" * size,
        b"[" + b"{}," * (size // 3),
        b'{"a":' + b"[" * 50 + b"1," * (size // 2),
        b" " * size,
        b"{" + b" " * size + b"}" + b" " * size,
        b"\xff" * size,
    ]


@pytest.mark.parametrize("text", hostile_texts(), ids=lambda text: text[:8].hex())
def test_a_hostile_megabyte_takes_little_time_and_memory(text: bytes) -> None:
    tracemalloc.start()
    began = time.monotonic()
    with pytest.raises(PayloadError):
        split_body(text, "inputs")
    took, peak = time.monotonic() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert took < 10  # about a second at worst, under tracemalloc
    assert peak < 64 << 20


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_but_payload_errors(noise: bytes) -> None:
    for body in (noise, b'{"inputs":[' + noise, REQUEST_JSON + noise, REQUEST_JSON[: len(noise) * 7] + noise):
        for length in (None, len(noise)):
            try:
                layout = split_body(body, "inputs", length)
            except PayloadError:
                continue
            assert body[: layout.header_length].rstrip().endswith(b"}")


def test_nothing_here_imports_numpy() -> None:
    program = "import sys, servelens.contract.wire; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
