"""Exchange, split and accounting events as Kafka records: own bytes, round trips, other people's readers."""

from dataclasses import replace

import orjson
import pytest
from cloudevents.core.bindings import kafka as core_binding
from cloudevents.v1.kafka import KafkaMessage, from_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from servelens.contract import records
from servelens.contract.errors import PayloadError
from servelens.contract.events import Accounting, Exchange, Half
from servelens.contract.identity import ModelIdentity

IDENTITY = ModelIdentity("shop", "risk", "predictor", "risk", "risk-00001")
EXCHANGE = Exchange(
    exchangeid="019a0000-0000-7000-8000-000000000001",
    arrived_us=1_786_000_000_123_456,
    identity=IDENTITY,
    method="POST",
    path="/v1/models/risk:predict",
    status=200,
    protocol="http/1.1",
    duration_us=4_250,
    requestid="req-7",
    traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    tapid="tap",
    seq=41,
    request=Half(b'{"instances":[[1,2]]}', 21, content_type="application/json"),
    response=Half(b'{"predictions":[0]}', 19, content_type="application/json; charset=utf-8"),
)


def headers(record: object) -> dict[str, str]:
    return {name: value.decode() for name, value in record.headers}  # type: ignore[attr-defined]


def test_an_exchange_event_is_one_record_with_both_bodies() -> None:
    record = records.exchange_record(EXCHANGE)
    assert record.key == EXCHANGE.exchangeid.encode()
    assert record.value == b'{"instances":[[1,2]]}{"predictions":[0]}'
    assert record.timestamp_ms == 1_786_000_000_123
    assert headers(record) == {
        "content-type": "application/vnd.servelens.exchange",
        "ce_specversion": "1.0",
        "ce_id": EXCHANGE.exchangeid + "/exchange",
        "ce_source": "/namespaces/shop/inferenceservices/risk/predictor",
        "ce_type": "io.servelens.inference.exchange.v1",
        "ce_time": "2026-08-06T07:06:40.123456Z",
        "ce_inferenceservicename": "risk",
        "ce_namespace": "shop",
        "ce_component": "predictor",
        "ce_modelname": "risk",
        "ce_revision": "risk-00001",
        "ce_method": "POST",
        "ce_path": "/v1/models/risk:predict",
        "ce_statuscode": "200",
        "ce_protocol": "http/1.1",
        "ce_durationms": "4.250",
        "ce_requestid": "req-7",
        "ce_exchangeid": EXCHANGE.exchangeid,
        "ce_tapid": "tap",
        "ce_seq": "41",
        "ce_traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "ce_schemaversion": "1",
        "ce_requestlength": "21",
        "ce_requesttype": "application/json",
        "ce_requestbytes": "21",
        "ce_responsetype": "application/json; charset=utf-8",
        "ce_responsebytes": "19",
    }


def test_what_is_not_known_is_absent_not_empty() -> None:
    bare = Exchange("id", 0, identity=ModelIdentity("n", "i"), request=Half(), response=Half())
    names = set(headers(records.exchange_record(bare)))
    assert not names & {
        "ce_modelname",
        "ce_revision",
        "ce_requestid",
        "ce_tapid",
        "ce_seq",
        "ce_redacted",
        "ce_statuscode",
    }


def test_split_events_have_kserves_types_ids_of_their_own_and_one_key() -> None:
    request, response = records.encode(EXCHANGE, "all", 41)
    assert request.key == response.key == EXCHANGE.exchangeid.encode()
    assert headers(request)["ce_type"] == "org.kubeflow.serving.inference.request"
    assert headers(response)["ce_type"] == "org.kubeflow.serving.inference.response"
    assert headers(request)["ce_id"] == EXCHANGE.exchangeid + "/request"
    assert headers(request)["ce_seq"] == "41"
    assert headers(response)["ce_seq"] == "42"
    assert headers(response)["content-type"] == "application/json; charset=utf-8"
    assert headers(response)["ce_time"] == "2026-08-06T07:06:40.127706Z"
    assert "ce_responsebytes" not in headers(request)


@pytest.mark.parametrize(("mode", "count"), [("exchange", 1), ("all", 2), ("request", 1), ("response", 1), ("none", 0)])
def test_each_log_mode_ships_its_halves(mode: str, count: int) -> None:
    assert len(records.encode(EXCHANGE, mode, 1)) == count  # type: ignore[arg-type]


text = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
halves = st.builds(
    Half,
    body=st.binary(max_size=64),
    size=st.integers(0, 2**40),
    truncated=st.booleans(),
    content_type=st.just("") | text,
    encoding=st.sampled_from(["", "gzip"]),
    header_length=st.none() | st.integers(0, 10_000),
)
exchanges = st.builds(
    Exchange,
    exchangeid=text,
    arrived_us=st.integers(0, 4_000_000_000_000_000),
    identity=st.builds(ModelIdentity, text, text, text, st.just("") | text, st.just("") | text),
    method=st.sampled_from(["POST", "GET"]),
    path=text,
    status=st.none() | st.integers(100, 599),
    protocol=st.just("http/1.1"),
    grpcstatus=st.none() | st.integers(0, 16),
    duration_us=st.none() | st.integers(0, 10**9),
    requestid=st.just("") | text,
    samplerate=st.none() | st.sampled_from([0.5, 0.01]),
    redacted=st.just(()) | st.just(("request.inputs.ssn", "response.body")),
    claimedsynthetic=st.booleans(),
    tapid=text,
    seq=st.integers(1, 2**50),
    request=halves,
    response=halves,
)


@settings(max_examples=150)
@given(exchanges)
def test_an_exchange_survives_its_record(exchange: Exchange) -> None:
    record = records.exchange_record(exchange)
    read = records.decode(record.headers, record.value)
    assert isinstance(read, Exchange)
    assert replace(read, sources=()) == exchange


@settings(max_examples=80)
@given(exchanges)
def test_halves_come_back_as_what_they_were(exchange: Exchange) -> None:
    request, response = (records.decode(r.headers, r.value) for r in records.encode(exchange, "all", exchange.seq))
    assert isinstance(request, Exchange)
    assert isinstance(response, Exchange)
    assert (request.request, request.response) == (exchange.request, None)
    assert (response.request, response.response) == (None, exchange.response)
    assert request.exchangeid == response.exchangeid == exchange.exchangeid


def test_accounting_survives_and_is_keyed_by_tap() -> None:
    account = Accounting("tap", 7, IDENTITY, 1_000_000, 11_000_000, 12, {"crash": 2})
    record = records.accounting_record(account)
    assert record.key == b"tap"
    assert records.decode(record.headers, record.value) == account


# -- other people's readers -----------------------------------------------------------------------------------


def test_the_cloudevents_sdk_reads_split_events_with_its_defaults() -> None:
    for record in records.encode(EXCHANGE, "all", 1):
        event = from_binary(KafkaMessage(dict(record.headers), record.key, record.value))
        assert event["inferenceservicename"] == "risk"
        assert event.get_data() in ({"instances": [[1, 2]]}, {"predictions": [0]})


def test_the_cloudevents_sdk_reads_exchange_events_as_bytes() -> None:
    record = records.exchange_record(EXCHANGE)
    event = from_binary(KafkaMessage(dict(record.headers), record.key, record.value), data_unmarshaller=bytes)
    assert event.get_data() == record.value
    assert event["requestlength"] == "21"
    assert event["datacontenttype"] == "application/vnd.servelens.exchange"


def test_the_newer_cloudevents_binding_reads_both() -> None:
    for record in (*records.encode(EXCHANGE, "all", 1), records.exchange_record(EXCHANGE)):
        message = core_binding.KafkaMessage(dict(record.headers), record.key, record.value)
        event = core_binding.from_kafka_event(message)
        assert event.get_extension("exchangeid") == EXCHANGE.exchangeid


# -- foreign events -------------------------------------------------------------------------------------------

KSERVE = (
    ("content-type", b"application/json"),
    ("ce_specversion", b"1.0"),
    ("ce_type", b"org.kubeflow.serving.inference.request"),
    ("ce_id", b"0009174a-24a8-4603-b098-09c8799950e9"),
    ("ce_source", b"http://localhost:9081/"),
    ("ce_time", b"2026-08-21T00:23:26.070000001Z"),
    ("ce_inferenceservicename", b"sklearn-iris"),
    ("ce_namespace", b"default"),
    ("ce_component", b"predictor"),
    ("ce_endpoint", b""),
    ("ce_metadata", b'{"X-Request-Id":["abc"]}'),
)


def test_kserves_halves_meet_under_one_repeatable_id() -> None:
    request = records.decode(KSERVE, b'{"instances":[[6.8]]}')
    swapped = [(n, b"org.kubeflow.serving.inference.response" if n == "ce_type" else v) for n, v in KSERVE]
    response = records.decode(swapped, b'{"predictions":[1]}')
    assert isinstance(request, Exchange)
    assert isinstance(response, Exchange)
    assert request.exchangeid == response.exchangeid
    assert request.requestid == "abc"
    assert request.identity == ModelIdentity("default", "sklearn-iris", "predictor", "", "")
    assert request.request == Half(b'{"instances":[[6.8]]}', 21, content_type="application/json")


def test_seldons_halves_meet_by_their_request_id() -> None:
    base = [("ce_specversion", b"1.0"), ("ce_time", b"2026-08-21T00:23:26Z"), ("ce_requestid", b"r-1")]
    base += [("ce_inferenceservicename", b"iris"), ("ce_namespace", b"seldon"), ("ce_modelid", b"classifier")]
    halves = [
        records.decode([*base, ("ce_id", name), ("ce_type", b"io.seldon.serving.inference." + name)], b"{}")
        for name in (b"request", b"response")
    ]
    assert len({half.exchangeid for half in halves if isinstance(half, Exchange)}) == 1
    assert isinstance(halves[0], Exchange)
    assert halves[0].identity.modelname == "classifier"


# -- hostile ones ---------------------------------------------------------------------------------------------


def changed(name: str, value: bytes | None) -> list[tuple[str, bytes]]:
    rest = [(n, v) for n, v in records.exchange_record(EXCHANGE).headers if n != name]
    return rest if value is None else [*rest, (name, value)]


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("ce_specversion", b"0.3", "specversion"),
        ("ce_id", None, "id"),
        ("ce_type", b"com.example", "type"),
        ("ce_time", b"yesterday", "time"),
        ("ce_time", b"2026-08-21T00:23:26", "time"),
        ("ce_requestlength", b"-1", "requestlength"),
        ("ce_requestlength", b"99999", "requestlength"),
        ("ce_requestlength", b"9" * 400, "requestlength"),
        ("ce_requestlength", None, "requestlength"),
        ("ce_statuscode", b"ok", "statuscode"),
        ("ce_seq", "²".encode(), "seq"),
        ("ce_durationms", b"nan", "durationms"),
        ("ce_durationms", b"1e400", "durationms"),
        ("ce_path", b"\xff", "ce_path"),
    ],
)
def test_a_bad_attribute_is_named(name: str, value: bytes | None, field: str) -> None:
    with pytest.raises(PayloadError) as caught:
        records.decode(changed(name, value), b"x" * 40)
    assert caught.value.field == field


@given(st.lists(st.tuples(st.text(max_size=20).map(lambda t: "ce_" + t), st.binary(max_size=40)), max_size=90))
def test_no_headers_do_worse_than_a_typed_error(extra: list[tuple[str, bytes]]) -> None:
    with pytest.raises(PayloadError):
        records.decode([("ce_specversion", b"1.0"), *extra, *[("ce_x", b"y")] * 64], b"")


@pytest.mark.parametrize("data", [b"", b"[]", b'{"offered":1}', b'{"offered":-1,"reasons":{},"from":"x","to":"y"}'])
def test_bad_accounting_is_refused(data: bytes) -> None:
    good = records.accounting_record(Accounting("tap", 7, IDENTITY, 0, 1, 12, {}))
    with pytest.raises(PayloadError):
        records.decode(good.headers, data)


def test_negative_counts_are_refused() -> None:
    good = records.accounting_record(Accounting("tap", 7, IDENTITY, 0, 1, 12, {}))
    data = {**orjson.loads(good.value), "reasons": {"crash": -1}}
    with pytest.raises(PayloadError, match="whole numbers"):
        records.decode(good.headers, orjson.dumps(data))
