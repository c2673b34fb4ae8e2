"""Events over HTTP: CloudEvents 1.0 HTTP protocol binding, binary, structured and batched (sections 3.1 to 3.3).

KServe's agent posts binary mode; Knative may send structured. Apart from `records`, since Kafka needs none of it.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, unquote

import orjson

from servelens.contract import attributes as names
from servelens.contract.errors import PayloadError, TooLarge
from servelens.contract.events import Exchange, Record

STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
MAX_BATCH: Final = 1000
_TOLD: Final = ("ce-", "content-type")  # headers that are part of an event
# Section 3.1.3.2: everything but printable ASCII is percent-encoded, and so are `"` and `%` and the space.
_SAFE: Final = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '"%')


def write(record: Record) -> tuple[dict[str, str], bytes]:
    """A Kafka record's event as HTTP headers and body, binary mode."""
    headers: dict[str, str] = {}
    for name, raw in record.headers:
        text = raw.decode()
        if name == "content-type":
            headers["content-type"] = text
        elif name.startswith("ce_"):
            headers["ce-" + name[3:]] = quote(text, safe=_SAFE)
    return headers, record.value


@dataclass(frozen=True, slots=True)
class Unread:
    """An event that cannot be read, as it came: its headers, in binary mode, and its body; and why."""

    error: PayloadError
    headers: tuple[tuple[str, str], ...]
    body: bytes


def read(headers: Mapping[str, str], body: bytes, *, max_batch: int = MAX_BATCH) -> tuple[Exchange, ...]:
    """The payload events of one POST; header names in any case. PayloadError names the attribute at fault."""
    found = read_each(headers, body, max_batch=max_batch)
    for one in found:
        if isinstance(one, Unread):
            raise one.error
    return tuple(one for one in found if isinstance(one, Exchange))


def read_each(headers: Mapping[str, str], body: bytes, *, max_batch: int = MAX_BATCH) -> tuple[Exchange | Unread, ...]:
    """The same, each event by itself: one that cannot be read costs the others of its batch nothing.

    TooLarge if there are more than `max_batch`.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    media = lowered.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if media == STRUCTURED:
            return (_structured(_json(body)),)
        if media != BATCH:
            return (_binary(lowered, body),)
        events = _array(body)
    except PayloadError as error:
        return (Unread(error, tuple((n, v) for n, v in lowered.items() if n.startswith(_TOLD)), body),)
    if len(events) > max_batch:
        raise TooLarge("body", f"a batch of {len(events)} events; send at most {max_batch}")
    return tuple(map(_of_batch, events))


def _array(body: bytes) -> list[Any]:
    found = _json(body)
    if not isinstance(found, list):
        raise PayloadError("body", "a batch is a JSON array of events")
    return found


def _of_batch(event: Any) -> Exchange | Unread:
    try:
        return _structured(event)
    except PayloadError as error:
        return Unread(error, (("content-type", STRUCTURED),), orjson.dumps(event))


def _binary(lowered: Mapping[str, str], body: bytes) -> Exchange:
    attributes = {name[3:]: unquote(value) for name, value in lowered.items() if name.startswith("ce-")}
    if attributes.get("specversion") != "1.0":
        raise PayloadError("ce-specversion", "missing or not 1.0; send a CloudEvent", reason="no_cloudevent")
    return names.read_exchange(attributes, body, lowered.get("content-type", ""))


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise PayloadError("body", f"not JSON: {error}") from error


def _structured(event: Any) -> Exchange:
    if not isinstance(event, dict) or event.get("specversion") != "1.0":
        raise PayloadError("specversion", "missing or not 1.0; send a CloudEvent", reason="no_cloudevent")
    attributes = {
        name: _text(name, value)
        for name, value in event.items()
        if name not in ("data", "data_base64") and value is not None
    }
    return names.read_exchange(attributes, _data(event), attributes.get("datacontenttype", "application/json"))


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise PayloadError(name[:80], "an attribute is a string, a number or a boolean", reason="bad_attribute")


def _data(event: dict[str, Any]) -> bytes:
    if (encoded := event.get("data_base64")) is not None:
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise PayloadError("data_base64", "not base64") from error
    data = event.get("data")
    if data is None:
        return b""
    # A string under a type that is not JSON is the body itself (JSON event format section 3.1.1).
    if isinstance(data, str) and "json" not in str(event.get("datacontenttype", "application/json")):
        return data.encode()
    return orjson.dumps(data)
