"""Events as Kafka records and back: CloudEvents 1.0 Kafka protocol binding, binary mode (section 3.2).

The recorder encodes, the detector's worker decodes; the shipper in between moves records without looking inside.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from servelens.contract import attributes as names
from servelens.contract.errors import PayloadError
from servelens.contract.events import (
    ACCOUNTING_TYPE,
    EXCHANGE_CONTENT_TYPE,
    EXCHANGE_TYPE,
    KSERVE_TYPE,
    MODE_SIDES,
    Accounting,
    Exchange,
    Half,
    LogMode,
    Record,
    Side,
)
from servelens.contract.identity import ModelIdentity
from servelens.contract.times import rfc3339, unix_us

Headers = Collection[tuple[str, bytes | None]]
JSON_TYPE: Final = "application/json"
MAX_HEADERS: Final = 64


def _record(key: str, content_type: str, attributes: Iterator[tuple[str, str]], value: bytes, time_us: int) -> Record:
    headers = [("content-type", content_type.encode())] if content_type else []
    headers += [("ce_" + name, text.encode()) for name, text in attributes]
    return Record(key.encode(), tuple(headers), value, time_us // 1000)


def _exchange_attributes(exchange: Exchange, request: Half, response: Half) -> Iterator[tuple[str, str]]:
    source = names.source_of(exchange.identity)
    yield from names.core(exchange.exchangeid + "/exchange", EXCHANGE_TYPE, source, exchange.arrived_us)
    yield from names.shared(exchange)
    yield "requestlength", str(len(request.body))
    for side, part in zip(names.SIDES, (request, response), strict=True):
        if part.content_type:
            yield side + "type", part.content_type
        yield from names.half(side, part)


def exchange_record(exchange: Exchange) -> Record:
    """Both bodies in one record, request first; key = exchangeid."""
    request, response = exchange.request or Half(), exchange.response or Half()
    attributes = _exchange_attributes(exchange, request, response)
    value = request.body + response.body
    return _record(exchange.exchangeid, EXCHANGE_CONTENT_TYPE, attributes, value, exchange.arrived_us)


def _half_attributes(exchange: Exchange, side: Side, part: Half) -> Iterator[tuple[str, str]]:
    event_id = f"{exchange.exchangeid}/{side}"
    ended = exchange.arrived_us + (exchange.duration_us or 0) if side == "response" else exchange.arrived_us
    yield from names.core(event_id, KSERVE_TYPE[side], names.source_of(exchange.identity), ended)
    yield from names.shared(exchange)
    yield from names.half(side, part)


def half_record(exchange: Exchange, side: Side) -> Record:
    """One half as KServe's agent would name it; key = exchangeid, so both halves meet on one partition."""
    part = (exchange.request if side == "request" else exchange.response) or Half()
    attributes = _half_attributes(exchange, side, part)
    return _record(exchange.exchangeid, part.content_type, attributes, part.body, exchange.arrived_us)


def encode(exchange: Exchange, mode: LogMode, first_seq: int) -> tuple[Record, ...]:
    """The records a log mode makes of an exchange, numbered from `first_seq`; none for mode `none`."""
    if mode == "exchange":
        return (exchange_record(replace(exchange, seq=first_seq)),)
    sides = MODE_SIDES[mode]
    return tuple(half_record(replace(exchange, seq=first_seq + i), side) for i, side in enumerate(sides))


def accounting_record(accounting: Accounting) -> Record:
    """An accounting event; key = tapid, never a row."""
    event_id = f"{accounting.tapid}/accounting/{accounting.seq}"
    identity = accounting.identity
    data: dict[str, Any] = {
        "from": rfc3339(accounting.from_us),
        "to": rfc3339(accounting.to_us),
        "offered": accounting.offered,
        "reasons": dict(accounting.reasons),
    }

    def attributes() -> Iterator[tuple[str, str]]:
        yield from names.core(event_id, ACCOUNTING_TYPE, names.source_of(identity), accounting.to_us)
        yield from names.shared(Exchange("", 0, identity=identity, tapid=accounting.tapid, seq=accounting.seq))

    return _record(accounting.tapid, JSON_TYPE, attributes(), orjson.dumps(data), accounting.to_us)


def read_headers(headers: Headers) -> tuple[dict[str, str], str]:
    """Kafka headers to attributes (without `ce_`) and the content type; other headers are left out."""
    if len(headers) > MAX_HEADERS:
        raise PayloadError("headers", f"more than {MAX_HEADERS}", reason="too_large")
    plain = dict(headers)
    content_type = plain.get("content-type")
    try:  # nearly every record: names as we write them, text that is UTF-8
        if content_type is not None and None not in plain.values():
            found = {name[3:]: raw.decode() for name, raw in plain.items() if raw is not None and name[:3] == "ce_"}
            return found, content_type.decode()
    except UnicodeDecodeError:
        pass
    return _read_oddly(headers)


def _read_oddly(headers: Headers) -> tuple[dict[str, str], str]:
    """The same one by one: absent values are left out, and the header that is not UTF-8 is named."""
    found: dict[str, str] = {}
    content_type = ""
    for name, raw in headers:
        try:
            if name.startswith("ce_") and raw is not None:
                found[name[3:]] = raw.decode()
            elif name.lower() == "content-type" and raw is not None:
                content_type = raw.decode()
        except UnicodeDecodeError as error:
            raise PayloadError(name[:80], "not UTF-8", reason="bad_attribute") from error
    return found, content_type


def _read_accounting(attributes: Mapping[str, str], value: bytes) -> Accounting:
    try:
        data = orjson.loads(value)
        offered, reasons = data["offered"], data["reasons"]
        counts = [offered, *reasons.values()]
        start, end = unix_us(str(data["from"]), "from"), unix_us(str(data["to"]), "to")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise PayloadError("accounting", "not the data of an accounting event") from error
    if any(not isinstance(c, int) or isinstance(c, bool) or c < 0 for c in counts):
        raise PayloadError("accounting", "counts are whole numbers from 0")
    seq = attributes.get("seq", "0")
    return Accounting(
        tapid=attributes.get("tapid", ""),
        seq=int(seq) if seq.isdigit() and len(seq) <= 16 else 0,
        identity=ModelIdentity.from_mapping(
            {**attributes, "inferenceservice": attributes.get("inferenceservicename", "")}
        ),
        from_us=start,
        to_us=end,
        offered=offered,
        reasons={str(k): v for k, v in reasons.items()},
    )


def decode(headers: Headers, value: bytes | None) -> Exchange | Accounting:
    """A record of `.payloads`: an exchange (whole, or one half) or an accounting event; PayloadError otherwise."""
    attributes, content_type = read_headers(headers)
    if attributes.get("specversion") != "1.0":
        raise PayloadError("specversion", "not a CloudEvents 1.0 record in binary mode", reason="no_cloudevent")
    if attributes.get("type") == ACCOUNTING_TYPE:
        return _read_accounting(attributes, value or b"")
    return names.read_exchange(attributes, value or b"", content_type)
