"""How an `Exchange` is spelled as CloudEvents attributes, and back: one table, used by the Kafka and the HTTP form.

Attribute names are lowercase alphanumeric (CloudEvents 1.0 section 3.1.1); values here are strings, absent rather
than empty. KServe's agent and Seldon spell some of it otherwise: the tables of aliases say how.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import orjson

from servelens.contract.errors import PayloadError
from servelens.contract.events import EXCHANGE_TYPE, HALF_TYPES, SCHEMA_VERSION, Exchange, Half, Side
from servelens.contract.identity import ModelIdentity, bridged_exchange_id, clean_request_id
from servelens.contract.times import rfc3339, unix_us

Attributes = Mapping[str, str]

SIDES: Final[tuple[Side, Side]] = ("request", "response")
# Attribute, field of Exchange, how its value is written; None and "" are absent.
_FIELDS: Final[tuple[tuple[str, str, Callable[[Any], str]], ...]] = (
    ("endpoint", "endpoint", str),
    ("method", "method", str),
    ("path", "path", str),
    ("statuscode", "status", str),
    ("protocol", "protocol", str),
    ("grpcstatus", "grpcstatus", str),
    ("durationms", "duration_us", lambda us: f"{us / 1000:.3f}"),
    ("requestid", "requestid", str),
    ("exchangeid", "exchangeid", str),
    ("tapid", "tapid", str),
    ("seq", "seq", str),
    ("samplerate", "samplerate", lambda rate: f"{rate:g}"),
    ("redacted", "redacted", " ".join),
    ("claimedsynthetic", "claimedsynthetic", lambda _: "true"),
    ("traceparent", "traceparent", str),
)
# A zero in these is "not known": rows are numbered from 1, a flag that is down is not sent.
_ABSENT_AT_ZERO: Final = frozenset({"seq", "redacted", "claimedsynthetic"})
_IDENTITY: Final = (
    ("inferenceservicename", "inferenceservice"),
    ("namespace", "namespace"),
    ("component", "component"),
    ("modelname", "modelname"),
    ("revision", "revision"),
)
# Seldon's word for it, where ours is missing.
_ALIASES: Final = {"modelname": "modelid"}


def source_of(identity: ModelIdentity) -> str:
    """The CloudEvents `source`: a URI-reference naming the InferenceService's component."""
    return f"/namespaces/{identity.namespace}/inferenceservices/{identity.inferenceservice}/{identity.component}"


def shared(exchange: Exchange) -> Iterator[tuple[str, str]]:
    """The attributes both the exchange event and each split event carry."""
    for name, part in _IDENTITY:
        if value := getattr(exchange.identity, part):
            yield name, value
    for name, field, written in _FIELDS:
        value = getattr(exchange, field)
        if value or (value == 0 and field not in _ABSENT_AT_ZERO):
            yield name, written(value)
    yield "schemaversion", str(SCHEMA_VERSION)


def half(side: Side, part: Half) -> Iterator[tuple[str, str]]:
    """A half's own attributes, without its content type (which is `requesttype` or the event's own)."""
    if part.header_length is not None:
        yield side + "headerlength", str(part.header_length)
    if part.encoding:
        yield side + "encoding", part.encoding
    if part.truncated:
        yield side + "truncated", "true"
    yield side + "bytes", str(part.size)


def _number(attributes: Attributes, name: str, *, limit: int = 1 << 53) -> int | None:
    text = attributes.get(name)
    if text is None or text == "":
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 16 or int(text) > limit:
        raise PayloadError(name, f"not a whole number from 0 to {limit}: {text[:24]!r}", reason="bad_attribute")
    return int(text)


def _decimal(attributes: Attributes, name: str) -> float | None:
    text = attributes.get(name)
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e15:
        raise PayloadError(name, f"not a number from 0: {text[:24]!r}", reason="bad_attribute")
    return value


def _identity(attributes: Attributes) -> ModelIdentity:
    parts = {part: attributes.get(name) or attributes.get(_ALIASES.get(name, ""), "") for name, part in _IDENTITY}
    return ModelIdentity(**{**parts, "component": parts["component"] or "predictor"})


def _metadata_request_id(attributes: Attributes) -> str | None:
    """KServe's agent puts forwarded headers as JSON into `metadata`: `{"X-Request-Id": ["…"]}`."""
    text = attributes.get("metadata", "")
    if not 2 < len(text) <= 65_536:
        return None
    try:
        headers = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(headers, dict):
        return None
    found = next((v for k, v in headers.items() if k.lower() == "x-request-id"), None)
    first = found[0] if isinstance(found, list) and found else found
    return first if isinstance(first, str) else None


def read_half(side: Side, attributes: Attributes, body: bytes, content_type: str) -> Half:
    """One half from its attributes; `body` is kept as it is."""
    size = _number(attributes, side + "bytes")
    return Half(
        body=body,
        size=len(body) if size is None else size,
        truncated=attributes.get(side + "truncated") == "true",
        content_type=content_type,
        encoding=attributes.get(side + "encoding", ""),
        header_length=_number(attributes, side + "headerlength"),
    )


def _split_bodies(attributes: Attributes, value: bytes) -> tuple[Half | None, Half | None]:
    length = _number(attributes, "requestlength")
    if length is None or length > len(value):
        raise PayloadError("requestlength", f"{length} of a value of {len(value)} bytes", reason="bad_attribute")
    bodies = (value[:length], value[length:])
    request, response = (
        read_half(side, attributes, body, attributes.get(side + "type", ""))
        for side, body in zip(SIDES, bodies, strict=True)
    )
    return request, response


def read_exchange(attributes: Attributes, value: bytes, content_type: str) -> Exchange:
    """An exchange or split event, own or foreign, from its attributes (without prefix) and data.

    Raises PayloadError naming the attribute. A foreign half gets the repeatable id of its exchange, so that both
    halves and any client come to the same `exchangeid`.
    """
    event_type, event_id = attributes.get("type", ""), attributes.get("id", "")
    if not event_id:
        raise PayloadError("id", "missing; a CloudEvent has one", reason="bad_attribute")
    side = HALF_TYPES.get(event_type)
    if side is None and event_type != EXCHANGE_TYPE:
        raise PayloadError("type", f"{event_type[:80]!r} is no payload event", reason="unknown_type")
    identity = _identity(attributes)
    halves: dict[str, Half | None] = {"request": None, "response": None}
    if side is None:
        halves["request"], halves["response"] = _split_bodies(attributes, value)
    else:
        halves[side] = read_half(side, attributes, value, content_type)
    join = attributes.get("requestid") if event_type.startswith("io.seldon.") else None
    duration = _decimal(attributes, "durationms")
    return Exchange(
        exchangeid=attributes.get("exchangeid")
        or bridged_exchange_id(identity.namespace, identity.inferenceservice, identity.component, join or event_id),
        arrived_us=unix_us(attributes.get("time", ""), "time"),
        identity=identity,
        endpoint=attributes.get("endpoint", ""),
        method=attributes.get("method", ""),
        path=attributes.get("path", ""),
        status=_number(attributes, "statuscode"),
        protocol=attributes.get("protocol", ""),
        grpcstatus=_number(attributes, "grpcstatus"),
        duration_us=None if duration is None else round(duration * 1000),
        requestid=clean_request_id(attributes.get("requestid") or _metadata_request_id(attributes)) or "",
        traceparent=attributes.get("traceparent", ""),
        samplerate=_decimal(attributes, "samplerate"),
        redacted=tuple(attributes.get("redacted", "").split()),
        claimedsynthetic=attributes.get("claimedsynthetic") == "true",
        tapid=attributes.get("tapid", ""),
        seq=_number(attributes, "seq") or 0,
        request=halves["request"],
        response=halves["response"],
        sources=(event_id,),
    )


def core(event_id: str, event_type: str, source: str, time_us: int) -> Iterator[tuple[str, str]]:
    """The attributes every event of ours starts with."""
    yield "specversion", "1.0"
    yield "id", event_id
    yield "source", source
    yield "type", event_type
    yield "time", rfc3339(time_us)
