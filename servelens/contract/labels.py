"""Labels: what became of a prediction, told later. The JSON of `POST /labels`, and the Kafka record either way.

Keyed by the join key, `NAMESPACE/INFERENCESERVICE/x:EXCHANGEID` or `…/r:REQUESTID`: an id of ours, or the client's own.
Called by the bridge and by whoever joins labels with predictions.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from servelens.contract import attributes as names
from servelens.contract.errors import PayloadError, TooLarge
from servelens.contract.events import LABEL_TYPE, SCHEMA_VERSION, Record
from servelens.contract.identity import ModelIdentity, clean_request_id, digest
from servelens.contract.records import Headers, read_headers
from servelens.contract.times import unix_us

Value = str | float | bool | None  # an int is a float here, and stays what it is
KnownAs = Callable[[str], str | None]
MAX_LABELS: Final = 1000  # in one body
MAX_VALUES: Final = 10_000  # rows of one exchange
MAX_TEXT: Final = 256  # characters of a text, and of a name
_FIELDS: Final = frozenset(
    {"namespace", "inferenceservice", "exchangeid", "requestid", "value", "values", "time", "id"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Label:
    """What became of one exchange: a value for each of its rows, in order; `time_us` is when that was known.

    One of `exchangeid` and `requestid` is given. `id` is the same when the same label is posted twice.
    """

    namespace: str
    inferenceservice: str
    values: tuple[Value, ...]
    time_us: int
    exchangeid: str = ""
    requestid: str = ""
    id: str = ""

    @property
    def join_key(self) -> str:
        """What predictions are found by."""
        own = f"x:{self.exchangeid}" if self.exchangeid else f"r:{self.requestid}"
        return f"{self.namespace}/{self.inferenceservice}/{own}"


def read_body(body: bytes, now_us: int, known_as: KnownAs = lambda known: known) -> tuple[Label, ...]:
    """The labels of a posted body, one object or an array of them; `now_us` is their time where they name none.

    All or nothing: PayloadError names the label and the field. `known_as` gives a request id as predictions carry it,
    or None where they do not.
    """
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise PayloadError("body", f"not JSON: {error}") from error
    many = found if isinstance(found, list) else [found]
    if not many:
        raise PayloadError("body", "no label in it; send an object or an array of them")
    if len(many) > MAX_LABELS:
        raise TooLarge("body", f"{len(many)} labels; send at most {MAX_LABELS}")
    places = [f"[{number}]." if isinstance(found, list) else "" for number in range(len(many))]
    return tuple(_label(one, at, now_us, known_as) for one, at in zip(many, places, strict=True))


def _label(one: Any, at: str, now_us: int, known_as: KnownAs) -> Label:
    if not isinstance(one, dict):
        raise PayloadError(at.rstrip(".") or "body", "a label is a JSON object")
    if strange := sorted(set(one) - _FIELDS):
        raise PayloadError(at + strange[0][:40], f"unknown; a label has {', '.join(sorted(_FIELDS))}")
    if ("exchangeid" in one) == ("requestid" in one):
        raise PayloadError(at + "exchangeid", "give either this or requestid")
    requestid = _request_id(one["requestid"], at, known_as) if "requestid" in one else ""
    label = Label(
        namespace=_name(one, "namespace", at),
        inferenceservice=_name(one, "inferenceservice", at),
        values=_values(one, at),
        time_us=unix_us(_name(one, "time", at), at + "time") if "time" in one else now_us,
        exchangeid=_name(one, "exchangeid", at) if "exchangeid" in one else "",
        requestid=requestid,
    )
    return _named(label, _name(one, "id", at) if "id" in one else "", str(one.get("time", "")))


def _request_id(given: Any, at: str, known_as: KnownAs) -> str:
    if not isinstance(given, str) or clean_request_id(given) is None:
        raise PayloadError(at + "requestid", "not 1 to 128 visible ASCII characters")
    known = known_as(given)
    if known is None:
        raise PayloadError(at + "requestid", "hidden here by a rule, so no prediction carries it; give the exchangeid")
    return known


def _named(label: Label, given: str, time: str) -> Label:
    values = orjson.dumps(label.values).decode()
    own = given or digest(label.join_key, values, time)[:32]
    return Label(
        label.namespace, label.inferenceservice, label.values, label.time_us, label.exchangeid, label.requestid, own
    )


def _name(one: Mapping[str, Any], field: str, at: str) -> str:
    value = one.get(field)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or not value.isprintable() or "/" in value:
        problem = "missing" if value is None else f"not a text of 1 to {MAX_TEXT} printable characters without a slash"
        raise PayloadError(at + field, problem)
    return value


def _values(one: Mapping[str, Any], at: str) -> tuple[Value, ...]:
    if ("value" in one) == ("values" in one):
        raise PayloadError(at + "value", "give either this, or values: an array with one for each row")
    field = "value" if "value" in one else "values"
    found = one[field] if field == "values" else [one[field]]
    if not isinstance(found, list) or not 0 < len(found) <= MAX_VALUES:
        raise PayloadError(at + field, f"not an array of 1 to {MAX_VALUES} values")
    for value in found:
        if not isinstance(value, str | int | float | bool | None) or len(str(value)) > MAX_TEXT:
            raise PayloadError(at + field, f"a value is null, a number, a boolean or a text of {MAX_TEXT} characters")
    return tuple(found)


def label_record(label: Label) -> Record:
    """The label as a CloudEvent in Kafka's binary mode: key = join key, value `{"values": […]}`."""
    identity = ModelIdentity(label.namespace, label.inferenceservice)

    def attributes() -> Iterator[tuple[str, str]]:
        yield from names.core(label.id, LABEL_TYPE, names.source_of(identity), label.time_us)
        yield "namespace", label.namespace
        yield "inferenceservicename", label.inferenceservice
        yield ("exchangeid", label.exchangeid) if label.exchangeid else ("requestid", label.requestid)
        yield "schemaversion", str(SCHEMA_VERSION)

    headers = [("content-type", b"application/json"), *(("ce_" + name, text.encode()) for name, text in attributes())]
    return Record(
        label.join_key.encode(), tuple(headers), orjson.dumps({"values": label.values}), label.time_us // 1000
    )


def decode(headers: Headers, value: bytes | None) -> Label:
    """A record of `.labels`; PayloadError otherwise."""
    attributes, _ = read_headers(headers)
    if attributes.get("specversion") != "1.0" or attributes.get("type") != LABEL_TYPE:
        raise PayloadError("type", f"no {LABEL_TYPE}", reason="unknown_type")
    try:
        data = orjson.loads(value or b"")
    except orjson.JSONDecodeError as error:
        raise PayloadError("value", f"not JSON: {error}") from error
    if not isinstance(data, dict):
        raise PayloadError("value", "not a JSON object")
    given: dict[str, Any] = {name: text for name, text in attributes.items() if name in _FIELDS}
    given |= {"inferenceservice": attributes.get("inferenceservicename", "")}
    return _label({**given, "values": data.get("values")}, "", 0, lambda known: known)
