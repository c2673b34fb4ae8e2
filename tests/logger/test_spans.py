"""Spans from recorded exchanges: names, attributes, and that nothing a client wrote freely is among them."""

from dataclasses import replace

import pytest

from logger.spans import MAX_LINKS, batch_span, exchange_span, onward, recorded_in, resource_of, route_of
from servelens.contract.events import Exchange, Half
from servelens.contract.identity import ModelIdentity, new_exchange_id
from servelens.contract.records import exchange_record
from servelens.contract.tracecontext import TraceContext, context_of

IDENTITY = ModelIdentity("shop", "risk", "predictor", "m", "r1")
CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
EXCHANGE = Exchange(
    exchangeid=new_exchange_id(),
    arrived_us=1_800_000_000_000_000,
    identity=IDENTITY,
    method="POST",
    path="/v1/models/m:predict",
    status=200,
    duration_us=2500,
    request=Half(b"{}", 2),
    response=Half(b"[]", 20),
)


@pytest.mark.parametrize(
    ("path", "template", "whole"),
    [
        ("/v1/models/m:predict", "/v1/models/{model}:predict", True),
        ("/v1/models/m/versions/3:explain", "/v1/models/{model}/versions/{version}:explain", True),
        ("/v2/models/m/infer", "/v2/models/{model}/infer", True),
        ("/serving/shop/risk/v2/models/m/infer", "/v2/models/{model}/infer", False),
        ("/openai/v1/chat/completions", "/openai/v1/chat/completions", True),
        ("/inference.GRPCInferenceService/ModelInfer", "/inference.GRPCInferenceService/ModelInfer", True),
        ("/v2/health/ready", "", False),
        ("/customers/4711", "", False),
    ],
)
def test_a_path_is_told_by_its_template(path: str, template: str, whole: bool) -> None:
    assert route_of(path) == (template, whole)


def test_an_exchange_is_a_server_span_below_the_clients() -> None:
    context = context_of(EXCHANGE.exchangeid, CLIENT, 0.0)
    span = exchange_span(EXCHANGE, context)
    found = dict(span.attributes)
    assert (span.name, span.kind, span.failed) == ("POST /v1/models/{model}:predict", "server", False)
    assert span.end_ns - span.start_ns == 2_500_000
    assert (span.context.traceid, span.context.parentid) == (CLIENT[3:35], CLIENT[36:52])
    assert found["server.address"] == "risk-predictor.shop"
    assert (found["http.request.body.size"], found["http.response.body.size"]) == (2, 20)
    assert found["http.response.status_code"] == 200
    assert onward(replace(EXCHANGE, traceparent=CLIENT), context) == context.traceparent
    assert resource_of(IDENTITY)["servelens.revision"] == "r1"


@pytest.mark.parametrize(
    ("change", "failed", "kind"),
    [
        ({"status": 404}, False, None),
        ({"status": 503}, True, "503"),
        ({"status": None}, True, "no_response"),
        ({"grpcstatus": 14}, True, "UNAVAILABLE"),
        ({"grpcstatus": 5}, False, None),
    ],
)
def test_it_has_failed_where_the_server_has(change: dict[str, int | None], failed: bool, kind: str | None) -> None:
    span = exchange_span(replace(EXCHANGE, **change), context_of(EXCHANGE.exchangeid, "", 1.0))  # type: ignore[arg-type]
    assert (span.failed, dict(span.attributes).get("error.type")) == (failed, kind)


def test_what_a_client_made_up_is_not_in_it() -> None:
    strange = replace(
        EXCHANGE, method="SECRET", path="/a/secret", redacted=("request.inputs.secret",), requestid="secret"
    )
    span = exchange_span(strange, context_of(EXCHANGE.exchangeid, "", 1.0))
    assert "secret" not in repr(span).lower()
    assert span.name == "HTTP"
    assert dict(span.attributes)["http.request.method"] == "_OTHER"


def test_a_spooled_event_says_whether_its_exchange_was_recorded() -> None:
    context = context_of(EXCHANGE.exchangeid, "", 1.0)
    kept = replace(EXCHANGE, traceparent=onward(EXCHANGE, context))
    assert recorded_in(exchange_record(kept).headers) == TraceContext(
        context.traceid, context.spanid, sampled=True, random=context.random
    )
    for other in (EXCHANGE, replace(EXCHANGE, traceparent=CLIENT), replace(EXCHANGE, traceparent="nonsense")):
        assert recorded_in(exchange_record(other).headers) is None


def test_links_have_an_end_and_name_each_span_once() -> None:
    contexts = [context_of(new_exchange_id(), "", 1.0) for _ in range(MAX_LINKS + 5)]
    span = batch_span("t", [*contexts, contexts[0]], 5, 3, messages=999)
    assert (len(span.links), span.dropped_links, span.end_ns) == (MAX_LINKS, 5, 5)
    assert dict(span.attributes)["messaging.batch.message_count"] == 999
