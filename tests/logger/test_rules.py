"""Rules: what is logged, what is hidden, and that nothing of a payload gets past them or makes them fail."""

import gzip
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import brotli
import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logger import rulesfile
from logger.inflate import inflated
from logger.rules import Rules
from logger.rulesfile import RulesFile, parse
from servelens.contract import oip
from servelens.contract.errors import ConfigError, PayloadError, TooLarge
from servelens.contract.events import Exchange, Half
from servelens.contract.identity import ModelIdentity, new_exchange_id

SECRET = "s3cr3t-4711"  # noqa: S105  it is what must not be found
KEY = b"0123456789abcdef"
V1, V2 = "/v1/models/m:predict", "/v2/models/m/infer"


def half(body: Any, **parts: Any) -> Half:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Half(raw, len(raw), **({"content_type": "application/json"} | parts))


def exchange(request: Any, response: Any = b"{}", path: str = V1, status: int | None = 200, **parts: Any) -> Exchange:
    return Exchange(
        parts.pop("exchangeid", "") or new_exchange_id(),
        0,
        identity=ModelIdentity("ns", "i", modelname="m"),
        method="POST",
        path=path,
        status=status,
        request=request if isinstance(request, Half) else half(request),
        response=response if isinstance(response, Half) else half(response),
        **parts,
    )


def rules(*redact: str, select: str = "", key: bytes | None = KEY) -> Rules:
    lines = "".join(f"\n  - {rule}" for rule in redact)
    return parse(f"version: 1\nselect: [{select}]\nredact: {lines or '[]'}", key)


def treated(rule: str, given: Exchange) -> Exchange:
    found = rules(rule).treat(given)
    assert isinstance(found, Exchange)
    return found


def request_of(given: Exchange) -> Any:
    assert given.request is not None
    return json.loads(given.request.body)


def everything(given: Exchange) -> bytes:
    halves = [part.body + part.content_type.encode() for part in (given.request, given.response) if part]
    return b"|".join([*halves, given.requestid.encode(), given.traceparent.encode(), " ".join(given.redacted).encode()])


# Values.


def test_without_rules_an_exchange_is_itself() -> None:
    given = exchange({"instances": [[1]]})
    assert Rules().treat(given) is given


def test_a_named_member_is_dropped_masked_or_stands_under_its_hmac() -> None:
    rows = {"instances": [{"ssn": SECRET, "age": 3}, {"ssn": SECRET, "age": 4}]}
    dropped = treated("{column: ssn, action: drop}", exchange(rows))
    assert request_of(dropped) == {"instances": [{"age": 3}, {"age": 4}]}
    assert dropped.redacted == ("request.instances.ssn",)
    masked = request_of(treated("{column: ssn, action: mask}", exchange(rows)))
    assert masked["instances"][0] == {"ssn": "***", "age": 3}
    hashed = request_of(treated("{column: ssn, action: hmac}", exchange(rows)))["instances"]
    assert hashed[0]["ssn"] == hashed[1]["ssn"] == "hmac:" + hashed[0]["ssn"][5:]
    assert len(hashed[0]["ssn"]) == 37
    other = parse("version: 1\nredact: [{column: ssn, action: hmac}]", KEY[::-1]).treat(exchange(rows))
    assert isinstance(other, Exchange)
    assert request_of(other)["instances"][0]["ssn"] != hashed[0]["ssn"]


def test_numbers_become_null() -> None:
    given = exchange({"instances": [{"age": 3, "n": [1, 2], "d": {"a": 1}}]})
    for name, nothing in (("age", None), ("n", [None, None]), ("d", None)):
        assert request_of(treated(f"{{column: {name}, action: mask}}", given))["instances"][0][name] == nothing


def test_a_place_in_rows_that_are_lists_needs_the_order_of_the_columns() -> None:
    given = exchange({"instances": [["a", 1], ["b", 2]]})
    assert request_of(treated("{column: x, columns: [x, y], action: mask}", given))["instances"] == [
        ["***", 1], ["***", 2]
    ]  # fmt: skip
    reasons: list[str] = []
    found = rules("{column: x, action: mask}").treat(given, reasons.append)
    assert isinstance(found, Exchange)
    assert (found.redacted, reasons) == (("request.body",), ["positional"])
    assert found.request == Half(b"", given.request.size if given.request else 0, True, "application/json")
    wrong = rules("{column: x, columns: [x, y, z], action: mask}").treat(given, reasons.append)
    assert isinstance(wrong, Exchange)
    assert (wrong.redacted, reasons[1:]) == (("request.body",), ["shape"])


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("$.instances[*].a.b", {"instances": [{"a": {"b": "***", "c": 1}}, {"a": {"b": "***", "c": 2}}], "k": ["x"]}),
        ("$.instances[1]..b", {"instances": [{"a": {"b": "p", "c": 1}}, {"a": {"b": "***", "c": 2}}], "k": ["x"]}),
        ("$..b", {"instances": [{"a": {"b": "***", "c": 1}}, {"a": {"b": "***", "c": 2}}], "k": ["x"]}),
        ('$["k"][0]', {"instances": [{"a": {"b": "p", "c": 1}}, {"a": {"b": "q", "c": 2}}], "k": ["***"]}),
        ("$.k.*", {"instances": [{"a": {"b": "p", "c": 1}}, {"a": {"b": "q", "c": 2}}], "k": ["***"]}),
        ("$.nowhere", {"instances": [{"a": {"b": "p", "c": 1}}, {"a": {"b": "q", "c": 2}}], "k": ["x"]}),
    ],
)
def test_paths(path: str, left: Any) -> None:
    body = {"instances": [{"a": {"b": "p", "c": 1}}, {"a": {"b": "q", "c": 2}}], "k": ["x"]}
    assert request_of(treated(f"{{json: '{path}', action: mask}}", exchange(body))) == left


# Tensors.


def v2(binary: bool) -> Half:
    """Two rows: ssn BYTES, age INT64, packed [2, 2] FP32, names BYTES [2, 2]."""
    ssn, names = [SECRET, "other"], [["a", SECRET], ["b", "c"]]
    packed = [[1.0, 2.0], [3.0, 4.0]]
    if not binary:
        tensors: list[dict[str, Any]] = [
            {"name": "ssn", "datatype": "BYTES", "shape": [2], "data": ssn},
            {"name": "age", "datatype": "INT64", "shape": [2], "data": [5, 6]},
            {"name": "packed", "datatype": "FP32", "shape": [2, 2], "data": packed},
            {"name": "names", "datatype": "BYTES", "shape": [2, 2], "data": names},
        ]
        return half({"inputs": tensors, "id": "1"})
    text = [struct.pack("<I", len(v)) + v.encode() for v in ssn]
    more = [struct.pack("<I", len(v)) + v.encode() for row in names for v in row]
    pieces = [b"".join(text), struct.pack("<2q", 5, 6), struct.pack("<4f", 1, 2, 3, 4), b"".join(more)]
    kinds = [("ssn", "BYTES", [2]), ("age", "INT64", [2]), ("packed", "FP32", [2, 2]), ("names", "BYTES", [2, 2])]
    heads = [
        {"name": name, "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(piece)}}
        for (name, kind, shape), piece in zip(kinds, pieces, strict=True)
    ]
    head = json.dumps({"inputs": heads}).encode()
    return half(head + b"".join(pieces), content_type="application/octet-stream", header_length=len(head))


def tensors(given: Exchange) -> dict[str, np.ndarray]:
    """By the project's own decoder, which checks every size."""
    assert given.request is not None
    request = oip.decode_request(given.request.body, given.request.header_length)
    return {tensor.name: tensor.data for tensor in request.inputs}


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
@pytest.mark.parametrize("action", ["mask", "hmac", "drop"])
def test_a_tensor_is_hidden_in_json_and_in_binary_alike(binary: bool, action: str) -> None:
    found = treated(f"{{column: ssn, action: {action}}}", exchange(v2(binary), path=V2))
    assert found.redacted == ("request.inputs.ssn",)
    left = tensors(found)
    assert ("ssn" in left) == (action != "drop")
    if action == "mask":
        assert [bytes(v) if isinstance(v, bytes) else str(v).encode() for v in left["ssn"]] == [b"***", b"***"]
    assert left["age"].tolist() == [5, 6]
    assert found.request is not None
    assert found.request.body.count(SECRET.encode()) == 1  # that of the other tensor


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_a_numeric_tensor_goes_and_its_slot_is_named(binary: bool) -> None:
    found = treated("{column: age, action: mask}", exchange(v2(binary), path=V2))
    assert found.redacted == ("request.inputs.age",)
    assert set(tensors(found)) == {"ssn", "packed", "names"}


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_a_column_of_a_packed_tensor_is_hidden_in_place(binary: bool) -> None:
    found = treated("{column: y, columns: [x, y], action: mask}", exchange(v2(binary), path=V2))
    assert set(found.redacted) == {"request.inputs.packed.y", "request.inputs.names.y"}
    assert found.request is not None
    if binary:
        left = tensors(found)
        assert np.isnan(left["packed"].reshape(2, 2)[:, 1]).all()
        assert left["packed"].reshape(2, 2)[:, 0].tolist() == [1.0, 3.0]
    else:
        by_name = {tensor["name"]: tensor["data"] for tensor in request_of(found)["inputs"]}
        assert by_name["packed"] == [[1.0, None], [3.0, None]]
        assert by_name["names"] == [["a", "***"], ["b", "***"]]
    assert found.request.body.count(SECRET.encode()) == 1  # the tensor of that name, which no rule names


def test_a_path_does_not_reach_into_binary_data_so_the_body_is_withheld() -> None:
    reasons: list[str] = []
    found = rules("{json: '$.inputs[*].data', action: mask}").treat(exchange(v2(binary=True), path=V2), reasons.append)
    assert isinstance(found, Exchange)
    assert (found.redacted, reasons) == (("request.body",), ["binary"])


# Bodies that cannot be judged.


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (half(b'{"ssn": "' + SECRET.encode()), "truncated"),
        (half(b'{"ssn": NaN}'), "non_finite"),
        (half(b'{"ssn": 1, "ssn": "' + SECRET.encode() + b'"}'), "duplicate_key"),
        (half({"ssn": SECRET}, truncated=True), "truncated"),
        (half({"ssn": SECRET}, encoding="zstd"), "encoding"),
        (half({"ssn": SECRET}, encoding="gzip"), "encoding"),
        (half({"ssn": SECRET}, content_type="image/png"), "content_type"),
        (half({"ssn": SECRET}, content_type="application/grpc"), "content_type"),
        (half([[SECRET]]), "positional"),
        (half(b"[" * 100 + b"]" * 100), "too_large"),
    ],
)
def test_what_cannot_be_judged_is_withheld_with_its_reason(body: Half, reason: str) -> None:
    reasons: list[str] = []
    found = rules("{column: ssn, action: mask}").treat(exchange(body), reasons.append)
    assert isinstance(found, Exchange)
    assert reasons == [reason]
    assert SECRET.encode() not in everything(found)
    assert found.request is not None
    assert (found.request.body, found.request.truncated, found.request.size) == (b"", True, body.size)


@pytest.mark.parametrize("status", [400, 422, 500, None])
def test_an_errors_body_is_withheld_whenever_a_body_rule_applies(status: int | None) -> None:
    given = exchange({"instances": []}, {"error": f"bad value {SECRET}"}, status=status)
    found = treated("{column: ssn, side: request, action: mask}", given)
    assert SECRET.encode() not in everything(found)
    assert "response.body" in found.redacted
    outside = rules("{column: ssn, model: other, action: mask}").treat(given)
    assert outside == given


@pytest.mark.parametrize(("answer", "kept"), [({"predictions": [1]}, True), ({"error": SECRET}, False)])
def test_a_foreign_response_is_judged_by_its_content(answer: Any, kept: bool) -> None:
    given = Exchange("e", 0, identity=ModelIdentity("n", "i", modelname="m"), response=half(answer))
    found = treated("{column: ssn, action: mask}", given)
    assert found.response is not None
    assert bool(found.response.body) == kept


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda raw: zlib.compress(raw, wbits=-15)),
        ("br", brotli.compress),
    ],
)
def test_a_compressed_body_is_read_and_stored_plain(encoding: str, pack: Any) -> None:
    raw = json.dumps({"instances": [{"ssn": SECRET}]}).encode()
    found = treated("{column: ssn, action: mask}", exchange(half(pack(raw), encoding=encoding)))
    assert found.request is not None
    assert (request_of(found), found.request.encoding) == ({"instances": [{"ssn": "***"}]}, "")
    bomb = pack(bytes(3 << 20))
    with pytest.raises(TooLarge):
        inflated(bomb, encoding, 1 << 20)
    with pytest.raises(PayloadError):
        inflated(pack(raw)[:-4], encoding)


# Headers, scopes, selection.


def test_headers_that_are_kept_can_be_hidden() -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    given = exchange(half({}, content_type=f"application/json; x={SECRET}"), requestid=SECRET, traceparent=trace)
    for header in ("x-request-id", "content-type"):
        given = treated(f"{{header: {header}, action: hmac}}", given)
    given = treated("{header: traceparent, action: drop}", given)
    assert SECRET.encode() not in everything(given)
    assert (given.requestid[:5], given.traceparent) == ("hmac:", "")
    assert given.redacted == (
        "request.header.x-request-id", "request.header.content-type", "request.header.traceparent"
    )  # fmt: skip


def test_the_first_selection_that_fits_decides_and_the_rate_is_told() -> None:
    made = rules(select="{status: 5xx, sample: 1.0}, {path: '/v1/*', sample: 0.25}, {model: m, log: false}")
    kept = [made.treat(exchange({}, status=200)) for _ in range(2000)]
    logged = [one for one in kept if isinstance(one, Exchange)]
    assert 400 < len(logged) < 600
    assert {one.samplerate for one in logged} == {0.25}
    assert {one for one in kept if isinstance(one, str)} == {"sampled"}
    assert isinstance(made.treat(exchange({}, status=503)), Exchange)
    assert made.treat(exchange({}, path=V2)) == "filtered"


def test_both_halves_of_an_exchange_meet_the_same_fate() -> None:
    made = rules(select="{sample: 0.5}")
    for _ in range(50):
        one = new_exchange_id()
        fates = {isinstance(made.treat(exchange({}, exchangeid=one, status=s)), Exchange) for s in (200, 500)}
        assert len(fates) == 1


def test_the_kill_switch() -> None:
    assert parse("version: 1\nlog: false").treat(exchange({})) == "not_logged"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@given(
    json_values,
    st.lists(st.text("ab", max_size=2) | st.integers(0, 2), max_size=4),
    st.sampled_from(["mask", "drop", "hmac"]),
)
def test_a_planted_secret_is_never_left_wherever_it_stands(value: Any, where: list[Any], action: str) -> None:
    planted: Any = {"ssn": [SECRET, {"deep": SECRET}], "x": value}
    for step in where:
        planted = {step: planted} if isinstance(step, str) else [value] * step + [planted]
    for rule in (f"{{column: ssn, action: {action}}}", f"{{json: '$..ssn', action: {action}}}"):
        found = treated(rule, exchange({"instances": [planted], "more": planted}))
        assert SECRET.encode() not in everything(found)
        assert found.redacted


# The file.


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("version: 2", "version"),
        ("version: 1\nlogs: true", "logs"),
        ("version: 1\nredact: [{column: a}]", "action"),
        ("version: 1\nredact: [{column: a, header: traceparent, action: mask}]", "redact.0"),
        ("version: 1\nredact: [{column: a, columns: [b], action: mask}]", "redact.0"),
        ("version: 1\nredact: [{json: 'instances', action: mask}]", "redact.0.json"),
        ("version: 1\nredact: [{header: authorization, action: mask}]", "redact.0.header"),
        ("version: 1\nselect: [{sample: 2}]", "select.0.sample"),
        ("version: 1\nselect: [{status: 9xx}]", "select.0.status"),
        ("[", "YAML"),
    ],
)
def test_a_wrong_file_names_the_key(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named.replace(".", r"\.")):
        parse(text)


def test_hmac_needs_a_key_and_the_key_a_length(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--redaction-key"):
        parse("version: 1\nredact: [{column: a, action: hmac}]")
    (tmp_path / "key").write_text("short")
    with pytest.raises(ConfigError, match="--redaction-key"):
        rulesfile.read_key(tmp_path / "key")


def test_the_schema_takes_what_is_taken() -> None:
    schema = rulesfile.schema()
    jsonschema.validate({"version": 1, "redact": [{"column": "a", "action": "mask"}]}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"version": 1, "redacts": []}, schema)


def test_a_change_is_taken_up_and_a_wrong_one_is_not(tmp_path: Path) -> None:
    now, errors = [0.0], list[Exception]()
    file = tmp_path / "rules.yaml"
    with pytest.raises(ConfigError, match="--rules"):
        RulesFile(file)
    file.write_text("version: 1")
    watched = RulesFile(file, None, lambda: now[0], on_error=errors.append)
    assert isinstance(watched.current().treat(exchange({})), Exchange)
    for text, fate in (("version: 1\nlog: false", "not_logged"), ("version: nonsense", "not_logged")):
        file.write_text(text)
        now[0] += 2
        assert [watched.current().treat(exchange({})) for _ in range(2)] == [fate] * 2
    assert len(errors) == 1
    file.unlink()
    now[0] += 2
    assert watched.current().treat(exchange({})) == "not_logged"
