"""Events over HTTP: KServe's agent as it posts, structured and batched ones, and our own written out."""

import base64

import orjson
import pytest
from cloudevents.v1.http import from_http
from hypothesis import given
from hypothesis import strategies as st

from servelens.contract import cloudhttp, records
from servelens.contract.errors import PayloadError, TooLarge
from servelens.contract.events import Exchange, Half
from servelens.contract.identity import ModelIdentity, bridged_exchange_id

# As KServe's agent sends it (Go canonicalises header names; `Ce-Endpoint` is empty in every deployment seen).
AGENT = {
    "Content-Type": "application/json",
    "Ce-Specversion": "1.0",
    "Ce-Type": "org.kubeflow.serving.inference.request",
    "Ce-Id": "0009174a-24a8-4603-b098-09c8799950e9",
    "Ce-Source": "http://localhost:9081/",
    "Ce-Time": "2026-08-21T00:23:26.07Z",
    "Ce-Recordedtime": "2026-08-21T00:23:26.09Z",
    "Ce-Inferenceservicename": "sklearn-iris",
    "Ce-Namespace": "default",
    "Ce-Component": "predictor",
    "Ce-Endpoint": "",
    "Ce-Metadata": '{"X-Request-Id":["abc"]}',
}
BODY = b'{"instances":[[6.8,2.8,4.8,1.4]]}'


def structured(**more: object) -> dict[str, object]:
    return {
        "specversion": "1.0",
        "id": "e-1",
        "source": "/x",
        "type": "org.kubeflow.serving.inference.response",
        "time": "2026-08-21T00:23:26.07Z",
        "inferenceservicename": "iris",
        "namespace": "default",
        **more,
    }


def test_the_agents_post_is_read() -> None:
    (event,) = cloudhttp.read(AGENT, BODY)
    assert event.exchangeid == bridged_exchange_id("default", "sklearn-iris", "predictor", AGENT["Ce-Id"])
    assert event.request == Half(BODY, len(BODY), content_type="application/json")
    assert event.response is None
    assert event.requestid == "abc"


@pytest.mark.parametrize(
    ("more", "body"),
    [
        ({"data": {"predictions": [1]}}, b'{"predictions":[1]}'),
        ({"data_base64": base64.b64encode(b"\x00\x01").decode()}, b"\x00\x01"),
        ({"data": "data: [DONE]", "datacontenttype": "text/event-stream"}, b"data: [DONE]"),
        ({}, b""),
    ],
)
def test_structured_events_are_read(more: dict[str, object], body: bytes) -> None:
    headers = {"content-type": "application/cloudevents+json; charset=utf-8"}
    (event,) = cloudhttp.read(headers, orjson.dumps(structured(**more)))
    assert event.response is not None
    assert event.response.body == body


def test_a_batch_is_read_and_bounded() -> None:
    headers = {"content-type": "application/cloudevents-batch+json"}
    body = orjson.dumps([structured(id="a"), structured(id="b")])
    assert [event.sources for event in cloudhttp.read(headers, body)] == [("a",), ("b",)]
    with pytest.raises(TooLarge, match="at most 1"):
        cloudhttp.read(headers, body, max_batch=1)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b"{}"),
        ({"content-type": "application/cloudevents+json"}, b"{"),
        ({"content-type": "application/cloudevents+json"}, b"[]"),
        ({"content-type": "application/cloudevents+json"}, b'{"specversion":"1.0","id":[1]}'),
        ({"content-type": "application/cloudevents+json"}, orjson.dumps(structured(data_base64="***"))),
        ({"content-type": "application/cloudevents+json"}, orjson.dumps(structured(data_base64=7))),
        ({"content-type": "application/cloudevents-batch+json"}, b"{}"),
    ],
)
def test_what_is_no_event_is_refused(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(PayloadError):
        cloudhttp.read(headers, body)


@given(st.text(min_size=1, max_size=30).filter(lambda t: t.isprintable()), st.binary(max_size=30))
def test_our_own_events_survive_http(model: str, body: bytes) -> None:
    exchange = Exchange(
        "e", 1_000_000, identity=ModelIdentity("n", "i", "predictor", model), request=Half(body, len(body))
    )
    (record, _) = records.encode(exchange, "all", 1)
    headers, data = cloudhttp.write(record)
    assert all(value.isascii() and value.isprintable() for value in headers.values())
    (read,) = cloudhttp.read(headers, data)
    assert read.identity.modelname == model
    assert read.request == exchange.request


def test_the_cloudevents_sdk_reads_what_we_write() -> None:
    exchange = Exchange(
        "e", 1_000_000, identity=ModelIdentity("n", "i"), request=Half(BODY, len(BODY), content_type="application/json")
    )
    headers, data = cloudhttp.write(records.encode(exchange, "request", 1)[0])
    event = from_http(headers, data)
    assert event.get_data() == orjson.loads(BODY)
    assert event["exchangeid"] == "e"
