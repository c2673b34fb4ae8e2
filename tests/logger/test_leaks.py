"""Ways around a rule: bodies, paths and spellings made so that a secret could stay in, and random ones."""

import gzip
import json
import struct
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logger.inflate import inflated
from logger.rules import Rules
from servelens.contract import oip
from servelens.contract.errors import TooLarge
from servelens.contract.events import Exchange, Half
from servelens.contract.identity import ModelIdentity

SECRET = "s3cr3t-4711"  # noqa: S105  it is what must not be found
KEY = b"0123456789abcdef"
V1, V2 = "/v1/models/m:predict", "/v2/models/m/infer"
MASK = "{column: ssn, action: mask}"
PACKED = "{column: b, columns: [a, b], action: mask}"


def half(body: Any, **parts: Any) -> Half:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Half(raw, len(raw), **({"content_type": "application/json"} | parts))


def exchange(request: Any, path: str = V2, model: str = "m", **parts: Any) -> Exchange:
    whole = request if isinstance(request, Half) else half(request)
    return Exchange(
        "e", 0, identity=ModelIdentity("ns", "i", modelname=model), method="POST", path=path,
        **({"status": 200, "request": whole} | parts),
    )  # fmt: skip


def treat(given: Exchange, *rules: str, key: bytes = KEY) -> tuple[Exchange, list[str]]:
    """What is stored, and why bodies were left out."""
    reasons: list[str] = []
    text = "version: 1\nredact:" + "".join(f"\n  - {rule}" for rule in rules)
    found = Rules.parse(text, key).treat(given, reasons.append)
    assert isinstance(found, Exchange)
    return found, reasons


def everything(given: Exchange) -> bytes:
    return repr(given).encode()


def tensor(name: str = "ssn", data: Any = (SECRET,), **parts: Any) -> dict[str, Any]:
    return {"name": name, "datatype": "BYTES", "shape": [len(data)], "data": list(data)} | parts


def without(document: dict[str, Any], *members: str) -> dict[str, Any]:
    return {member: value for member, value in document.items() if member not in members}


# Tensors that are not quite tensors. Each: the body, the request's slots.


@pytest.mark.parametrize(
    ("body", "slots"),
    [
        ({"inputs": [without(tensor(), "datatype")]}, ("request.inputs.ssn",)),
        ({"inputs": [without(tensor(), "datatype", "shape")]}, ("request.inputs.ssn",)),
        ({"inputs": [tensor(), {"datatype": "FP32"}]}, ("request.inputs.ssn",)),
        ({"inputs": [tensor("a", "x")], "outputs": [tensor()]}, ("request.outputs.ssn",)),
        ({"inputs": [tensor(data=["x"], contents={"bytes_contents": [SECRET]})]}, ("request.inputs.ssn",)),
        ({"inputs": [tensor("a", [{"ssn": SECRET}])]}, ("request.inputs.a.ssn",)),
        ({"inputs": [tensor("a", "x", ssn=SECRET)]}, ("request.inputs.a.ssn",)),
        ({"inputs": [tensor("a", "x", parameters={"ssn": SECRET})]}, ("request.inputs.a.ssn",)),
        ({"inputs": [tensor("a", "x")], "parameters": {"x": [{"ssn": SECRET}]}}, ("request.parameters.ssn",)),
        ({"inputs": [tensor("a", "x")], "more": {"y": [tensor()]}}, ("request.ssn",)),
        ({"name": "ssn", "data": [SECRET]}, ("request.ssn",)),
        ({"inputs": [tensor(), tensor()]}, ("request.inputs.ssn",)),
        ({"inputs": [tensor(), "x"]}, ("request.body",)),
    ],
)
@pytest.mark.parametrize("action", ["mask", "drop", "hmac"])
def test_a_column_is_hidden_in_whatever_resembles_a_tensor(body: Any, slots: tuple[str, ...], action: str) -> None:
    found, _ = treat(exchange(body), f"{{column: ssn, action: {action}}}")
    assert SECRET.encode() not in everything(found)
    assert found.redacted == slots


def test_values_without_names_are_withheld_where_the_rule_cannot_tell_which_they_are() -> None:
    wide = tensor("input-0", [SECRET, "x"], shape=[1, 2])
    for body in ({"inputs": [wide]}, {"inputs": [wide | {"shape": [2], "data": [[SECRET, "x"]]}]}):
        found, reasons = treat(exchange(body), MASK)
        assert (found.redacted, reasons) == (("request.body",), ["positional"])
    found, reasons = treat(exchange({"inputs": [wide]}), "{column: ssn, columns: [a, b, ssn], action: mask}")
    assert (found.redacted, reasons) == (("request.body",), ["shape"])
    narrow = {"inputs": [tensor("x", ["a", "b"], shape=[2, 1])]}
    found, reasons = treat(exchange(narrow), MASK)
    assert (found, reasons) == (exchange(narrow), [])


def test_binary_elements_that_make_no_whole_rows_are_withheld() -> None:
    data = b"".join(struct.pack("<I", len(one)) + one for one in (b"", b"", SECRET.encode()))
    head = {"name": "p", "datatype": "BYTES", "shape": [1, 2], "parameters": {"binary_data_size": len(data)}}
    text = json.dumps({"inputs": [head]}).encode()
    found, reasons = treat(exchange(half(text + data, header_length=len(text))), PACKED)
    assert (found.redacted, reasons) == (("request.body",), ["shape"])


def test_a_packed_tensor_of_integers_goes_in_json_as_in_binary() -> None:
    given = {"inputs": [tensor("p", [1, 2], datatype="INT64", shape=[1, 2]), tensor("q", "x")]}
    found, _ = treat(exchange(given), PACKED)
    assert found.request is not None
    assert [one.name for one in oip.decode_request(found.request.body).inputs] == ["q"]
    assert found.redacted == ("request.inputs.p",)


# Rules beside each other.


def test_a_path_s_index_means_the_body_as_it_came() -> None:
    body = {"inputs": [tensor("age", [1], datatype="INT64"), tensor("x")]}
    found, _ = treat(exchange(body), "{column: age, action: mask}", "{json: '$.inputs[1].data', action: mask}")
    assert found.request is not None
    (left,) = json.loads(found.request.body)["inputs"]
    assert left == tensor("x", ["***"])


@pytest.mark.parametrize("member", ["name", "shape", "datatype"])
def test_a_column_is_found_though_a_path_hides_what_it_is_known_by(member: str) -> None:
    for rule, held in ((MASK, tensor()), (PACKED, tensor("p", ["x", SECRET], shape=[1, 2]))):
        found, _ = treat(exchange({"inputs": [held]}), f"{{json: '$.inputs[*].{member}', action: mask}}", rule)
        assert SECRET.encode() not in everything(found)
    named = tensor(SECRET, ["x", "y"], shape=[1, 2])
    found, _ = treat(exchange({"inputs": [named]}), "{json: '$.inputs[*].name', action: mask}", PACKED)
    assert found.redacted == ("request.inputs[*].name", "request.inputs.***.b")


def test_a_tensor_dropped_by_its_path_is_gone_and_the_others_stay() -> None:
    body = {"inputs": [tensor("a"), tensor(), tensor("b", "x")]}
    found, _ = treat(exchange(body), "{json: '$.inputs[0]', action: drop}", MASK)
    assert found.request is not None
    assert json.loads(found.request.body) == {"inputs": [tensor(data=["***"]), tensor("b", "x")]}


def test_a_place_two_ways_lead_to_is_hashed_once() -> None:
    body = {"a": {"a": {"k": "v"}}}
    one, _ = treat(exchange(body), "{json: '$..k', action: hmac}")
    other, _ = treat(exchange(body), "{json: '$..a..k', action: hmac}")
    assert one.request == other.request


def test_paths_with_many_ways_through_a_nest_take_no_longer() -> None:
    nest: Any = {"k": SECRET}
    for _ in range(50):
        nest = {"a": nest}
    started = time.monotonic()
    found, _ = treat(exchange(nest), "{json: '$" + "..a" * 12 + "..k', action: mask}")  # 1e11 ways
    assert time.monotonic() - started < 5
    assert SECRET.encode() not in everything(found)


def test_more_places_than_can_be_held_are_withheld() -> None:
    found, reasons = treat(
        exchange(b'{"instances":[' + b"0," * (1 << 18) + b"0]}"), "{json: '$.instances[*]', action: mask}"
    )
    assert (found.redacted, reasons) == (("request.body",), ["too_large"])


# Scopes.


@pytest.mark.parametrize(
    "path",
    [
        "/v1/mod%65ls/m:predict", "/v1/models/%6D:predict", "/v1/models/m%3Apredict", "http://host/v1/models/m:predict",
        "/v1/models/m:predict#x", "/v1/models/m:predict/", "",
    ],
)  # fmt: skip
@pytest.mark.parametrize("scope", ["model: m", "path: '/v1/models/m:predict'"])
def test_no_spelling_of_a_path_gets_around_a_scope(path: str, scope: str) -> None:
    given = exchange({"instances": [{"ssn": SECRET}]}, path, model="")
    found, _ = treat(given, f"{{column: ssn, {scope}, action: mask}}")
    assert found.redacted == ("request.instances.ssn",)
    assert SECRET.encode() not in everything(found)


def test_a_scope_leaves_other_models_alone() -> None:
    given = exchange({"instances": [{"ssn": "x"}]}, "/v1/models/other:predict", model="other")
    for scope in ("model: m", "path: '/v1/models/m:predict'"):
        assert treat(given, f"{{column: ssn, {scope}, action: mask}}") == (given, [])


# What a body is said to be.


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"content_type": "application/json; charset=utf-7"}, "content_type"),
        ({"content_type": 'application/json; Charset="UTF-16"'}, "content_type"),
        ({"encoding": SECRET}, "encoding"),
        ({"encoding": "gzip, br"}, "encoding"),
    ],
)
def test_what_says_it_is_in_an_unknown_form_is_withheld(said: dict[str, str], reason: str) -> None:
    found, reasons = treat(exchange(half({"instances": [{"+AHMAcwBu-": SECRET}]}, **said)), MASK)
    assert reasons == [reason]
    assert SECRET.encode() not in everything(found)


@pytest.mark.parametrize(
    "said", ["application/json; charset=UTF-8", "application/json;charset=utf8", "Application/JSON", ""]
)
def test_what_says_it_is_utf_8_is_read(said: str) -> None:
    found, reasons = treat(exchange(half({"instances": [{"ssn": SECRET}]}, content_type=said)), MASK)
    assert (found.redacted, reasons) == (("request.instances.ssn",), [])


def test_an_answer_with_an_error_beside_it_may_echo() -> None:
    for body in ({"predictions": [1], "error": SECRET}, {"outputs": [tensor("y", "1")], "error": SECRET}):
        given = replace(exchange(b""), request=None, response=half(body), status=None)
        found, reasons = treat(given, MASK)
        assert (found.redacted, reasons) == (("response.body",), ["error_body"])


def test_the_ids_of_foreign_events_go_with_the_request_id() -> None:
    found, _ = treat(exchange({}, sources=(SECRET,), requestid=SECRET), "{header: x-request-id, action: mask}")
    assert (found.requestid, found.sources) == ("***", ())


def test_a_body_may_not_be_much_larger_than_it_came() -> None:
    with pytest.raises(TooLarge):
        inflated(gzip.compress(bytes(2 << 20)), "gzip")
    assert len(inflated(gzip.compress(bytes(1 << 20)), "gzip")) == 1 << 20


# Slots.


def test_slots_are_visible_bounded_and_never_end_within_an_escape() -> None:
    named = tensor("ä ö\n" * 40, ["x", "y"], shape=[1, 2])
    found, _ = treat(exchange({"inputs": [named]}), PACKED)
    (slot,) = found.redacted
    assert slot.startswith("request.inputs.%C3%A4%20%C3%B6%0A")
    assert len(slot) <= 128
    assert slot.rpartition("%")[2] not in ("", "C", "2", "0", "A", "B")
    many = {"inputs": [tensor(f"t{n}", ["x", "y"], shape=[1, 2]) for n in range(80)]}
    found, _ = treat(exchange(many), PACKED)
    assert found.redacted == (*(f"request.inputs.t{n}.b" for n in range(64)), "more")


# Random ones.

NAMES = ["ssn", "packed", "open", "f"]
ACTIONS = st.sampled_from(["mask", "drop", "hmac"])


@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True), st.sets(st.sampled_from(NAMES)), ACTIONS)
def test_tensors_in_any_order_and_form_are_hidden_and_read_again(
    names: list[str], binary: set[str], action: str
) -> None:
    made = {
        "ssn": oip.Tensor.of("ssn", np.array([SECRET, SECRET + "x"], object)),
        "packed": oip.Tensor.of("packed", np.array([["a", SECRET], ["b", SECRET]], object)),
        "open": oip.Tensor.of("open", np.array(["p", "q"], object)),
        "f": oip.Tensor.of("f", np.array([[1.5, 4711.25], [2.5, 4711.25]], np.float32)),
    }
    body, length = oip.encode_request(oip.InferRequest(tuple(made[name] for name in names)), binary & set(names))
    given = exchange(half(body, header_length=length, content_type="application/octet-stream"))
    rules = [f"{{column: {name}, columns: [a, {name}], action: {action}}}" for name in ("ssn", "b")]
    found, reasons = treat(given, *rules)
    assert reasons == []
    assert SECRET.encode() not in everything(found)
    assert found.request is not None
    left = {one.name: one for one in oip.decode_request(found.request.body, found.request.header_length).inputs}
    assert set(left) == set(names) - ({"ssn"} if action == "drop" else set())
    if "open" in left:
        assert left["open"].data.tolist() == [b"p", b"q"]
    if "f" in left:
        assert left["f"].data[:, 0].tolist() == [1.5, 2.5]
        assert np.isnan(left["f"].data[:, 1]).all()
    if "packed" in left:
        assert left["packed"].data[:, 0].tolist() == [b"a", b"b"]


BASES = [
    json.dumps({"instances": [{"ssn": SECRET, "n": [1, None, {"x": True}]}]}).encode(),
    json.dumps({"inputs": [tensor(), tensor("p", ["a", "b"], shape=[1, 2])], "parameters": {"ssn": 1}}).encode(),
]


@given(
    st.sampled_from(BASES),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 3), st.binary(max_size=3)), max_size=4),
    st.sampled_from(["application/json", "application/octet-stream", "", "text/plain"]),
    st.none() | st.integers(-1, 200),
    st.sampled_from(["", "gzip", "br", "deflate"]),
    ACTIONS,
)
def test_no_damage_to_a_body_makes_a_rule_fail(
    base: bytes, damage: list[tuple[int, int, bytes]], media: str, length: int | None, encoding: str, action: str
) -> None:
    body = base
    for at, gone, more in damage:
        body = body[:at] + more + body[at + gone :]
    given = exchange(half(body, content_type=media, header_length=length, encoding=encoding))
    rules = [MASK, PACKED, f"{{json: '$..n[*]', action: {action}}}", f"{{json: '$.inputs[0]', action: {action}}}"]
    found, reasons = treat(given, *rules)
    assert "failed" not in reasons
    assert found.request is not None
    assert found.request.size == len(body)
    assert found.request.truncated == bool(reasons)
    if not reasons:
        assert found.redacted or found == given


@given(st.sampled_from(BASES), st.integers(0, 200))
def test_a_body_cut_anywhere_is_withheld_whole(base: bytes, at: int) -> None:
    at = min(at, len(base) - 1)
    found, reasons = treat(replace(exchange(b""), request=half(base[:at])), MASK)
    assert found.request is not None
    assert found.request.body == b""
    assert bool(reasons) == (at > 0)
