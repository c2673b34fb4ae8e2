"""Strict JSON (RFC 8259) from strangers: bounded size, nesting and containers, no duplicate key, every fault typed.

orjson parses and by itself refuses NaN, Infinity, numbers beyond a double, invalid UTF-8 and more than 1024 levels, but
takes the last of two equal keys silently, where another reader (or a redaction) may see the first. Decided for the hot
path: *count*. Each member of an object has exactly one colon outside strings, so the body has duplicates if and only if
it has more such colons than the parsed objects have keys. All colons of the text, strings included, are counted first:
if there are as many keys, that is proof enough, and the walk that finds them stops there (before any tensor data),
so a one-row request pays some two microseconds. Only a body with colons inside strings pays for the exact count, one
linear pass of a regular expression. Depth is proved the same way: no more openers than the limit is enough.

Apart from `wire` since not all JSON is tensors. Called by every decoder and by the logger's redaction.
"""

import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias, cast

import orjson

from servelens.contract.errors import PayloadError, TooLarge
from servelens.contract.limits import LIMITS, Limits

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

# A string ends at its quote or, cut off, with the text: it always matches, so no quote is ever scanned twice.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)
_STEP = {ord("{"): 1, ord("["): 1, ord("}"): -1, ord("]"): -1}
_CONTAINERS = frozenset({list, dict})
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")


def parse_json(text: bytes | memoryview, field: str = "body", limits: Limits = LIMITS) -> Json:
    """The JSON value of `text`, the whole of it.

    Raises TooLarge over `limits`, else PayloadError with reason `not_json`, `truncated`, `not_utf8`, `non_finite` (a
    NaN or Infinity literal) or `duplicate_key`. Integers beyond 64 bits come back as floats (orjson).
    """
    if len(text) > limits.json_bytes:
        raise TooLarge(field, f"{len(text)} bytes of JSON, the limit is {limits.json_bytes}")
    raw = text if isinstance(text, bytes) else bytes(text)
    openers = raw.count(b"[") + raw.count(b"{")
    if openers > limits.containers:
        raise TooLarge(field, f"{openers} arrays and objects, the limit is {limits.containers}")
    try:
        value: Json = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        json_end(raw, field, limits)  # too deep or cut off: says so itself
        raise _explain(error, raw, field) from None
    colons = raw.count(b":")
    if openers > limits.depth or not _has_keys(value, colons):
        _check_members(value, raw, openers, colons, field, limits)
    return value


def parse_object(text: bytes | memoryview, field: str = "body", limits: Limits = LIMITS) -> dict[str, Json]:
    """`parse_json`, where only an object will do."""
    value = parse_json(text, field, limits)
    if type(value) is not dict:
        raise PayloadError(field, f"the root is {json_type(value)}, expected an object", reason="wrong_type")
    return value


def dump_json(document: Mapping[str, Json]) -> bytes:
    """Compact JSON; NaN and infinities become null. Raises PayloadError for a value JSON has no form for."""
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError as error:
        raise PayloadError("body", f"cannot be written as JSON: {error}", reason="wrong_type") from error


def json_end(body: bytes | memoryview, field: str = "body", limits: Limits = LIMITS) -> int:
    """Offset just behind the object or array `body` starts with; what follows may be anything.

    Only brackets and strings are looked at, in place and at most `limits.json_bytes` of them: what lies between is for
    the parser to judge. Raises PayloadError (`not_json`, `truncated`) or TooLarge.
    """
    depth = 0
    for token in _TOKEN.finditer(body, 0, limits.json_bytes):
        start = token.start()
        step = _STEP.get(body[start], 0)
        if depth == 0 and (step != 1 or bytes(body[:start]).strip()):
            break
        depth += step
        if depth > limits.depth:
            raise TooLarge(field, f"nested deeper than {limits.depth}")
        if depth == 0:
            return token.end()
    if depth:
        raise _cut_off(len(body), field, limits)
    raise PayloadError(field, "does not begin with a JSON object or array", reason="not_json")


def _cut_off(length: int, field: str, limits: Limits) -> PayloadError:
    if length > limits.json_bytes:
        return TooLarge(field, f"no end of the JSON within {limits.json_bytes} bytes")
    return PayloadError(field, f"the JSON is cut off after {length} bytes", reason="truncated")


def _explain(error: orjson.JSONDecodeError, raw: bytes, field: str) -> PayloadError:
    try:
        raw.decode()
    except UnicodeDecodeError as undecodable:
        return PayloadError(field, f"not UTF-8 (byte {undecodable.start})", reason="not_utf8")
    if error.doc.startswith(_NOT_FINITE, error.pos):
        problem = f"NaN or Infinity at character {error.pos}, which JSON does not have: send null or binary data"
        return PayloadError(field, problem, reason="non_finite")
    return PayloadError(field, f"not JSON: {error.msg} (character {error.pos})", reason="not_json")


def _has_keys(root: Json, keys: int) -> bool:
    """Whether the objects in a value have so many keys; stops at the one with the last of them."""
    found = [root]
    for item in found:  # grows while it is walked
        if type(item) is dict:
            keys -= len(item)
            if keys == 0:
                return True
            for member in item.values():
                if type(member) in _CONTAINERS:
                    found.append(member)  # noqa: PERF401 - to loop over a list being extended is the point
        elif type(item) is list and not _CONTAINERS.isdisjoint(map(type, item)):
            found += item
    return keys == 0


def _check_members(root: Json, raw: bytes, openers: int, colons: int, field: str, limits: Limits) -> None:
    """Refuse duplicate keys and too deep nesting, looking no further into the value than the proof needs."""
    keys = depth = 0
    level = [root] if type(root) in _CONTAINERS else []
    while level:
        depth += 1
        if depth > limits.depth:
            raise TooLarge(field, f"nested deeper than {limits.depth}")
        openers -= len(level)
        for item in level:
            if type(item) is dict:
                keys += len(item)
        if keys == colons and depth + openers <= limits.depth:
            return  # all keys are found, and what is left cannot nest too deep
        level = _below(level)
    if keys != colons and keys != _STRING.sub(b"", raw).count(b":"):
        raise PayloadError(field, "an object has the same key twice", reason="duplicate_key")


def _below(level: list[Json]) -> list[Json]:
    """The arrays and objects directly inside those of one level."""
    below: list[Json] = []
    for item in level:
        members: Iterable[Json] = item.values() if type(item) is dict else cast("list[Json]", item)
        if not _CONTAINERS.isdisjoint(map(type, members)):
            below += [member for member in members if type(member) in _CONTAINERS]
    return below


_NAMES: dict[type, str] = {
    type(None): "null",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
}


def json_type(value: object) -> str:
    """How JSON calls it, for messages (which never repeat a payload's values)."""
    return _NAMES.get(type(value), type(value).__name__)
