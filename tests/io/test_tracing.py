"""Spans to a collector that takes them, refuses them, stalls, asks to wait, or is away: each is counted once."""

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from otlp_receiver import attributes, certificate, receiving
from tap_parts import until

from servelens.contract.errors import ConfigError
from servelens.contract.tracecontext import SpanValues, TraceContext
from servelens.io.embedded import free_port
from servelens.io.otlp import OtlpSettings
from servelens.io.tracing import Pace, Tracer

CONTEXT = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", True, parentid="00f067aa0ba902b7")
SPAN = SpanValues("POST /v1/models/{model}:predict", "server", CONTEXT, 1_000, 5_000, (("n", 7), ("ok", True)))
QUICK = Pace(every=0.02, timeout=2.0, patience=3.0)


class Traced:
    """A tracer and what it has counted."""

    def __init__(self, endpoint: str, pace: Pace = QUICK, **settings: Path) -> None:
        self.outcomes: Counter[str] = Counter()
        self.tracer = Tracer(
            OtlpSettings(endpoint, **settings), "risk-predictor", {"k8s.namespace.name": "shop"}, self._count, pace
        )

    def _count(self, outcome: str, spans: int) -> None:
        self.outcomes[outcome] += spans

    def wait(self, outcome: str, spans: int) -> None:
        until(lambda: self.outcomes[outcome] >= spans, f"{spans} {outcome} of {self.outcomes}", 20)


def test_a_span_arrives_as_it_was_made() -> None:
    link = TraceContext("1" * 32, "2" * 16, True)
    with receiving() as collector:
        traced = Traced(collector.endpoint)
        traced.tracer.record(SPAN)
        traced.tracer.record(dataclasses.replace(SPAN, kind="producer", links=(link,), dropped_links=3, failed=True))
        traced.tracer.record(dataclasses.replace(SPAN, context=dataclasses.replace(CONTEXT, sampled=False)))
        one, other = collector.wait_spans(2)
        traced.tracer.close(2)
    assert (one.name, one.kind, one.start_time_unix_nano, one.end_time_unix_nano) == (SPAN.name, 2, 1_000, 5_000)
    ids = (one.trace_id.hex(), one.span_id.hex(), one.parent_span_id.hex())
    assert ids == (CONTEXT.traceid, CONTEXT.spanid, CONTEXT.parentid)
    assert attributes(one) == {"n": 7, "ok": True}
    assert [found.trace_id.hex() for found in other.links] == ["1" * 32]
    assert (other.kind, other.dropped_links_count, other.status.code, one.status.code) == (4, 3, 2, 0)
    (resource,) = {str(attributes(part.resource)) for post in collector.posts for part in post.message.resource_spans}
    assert "risk-predictor" in resource
    assert "shop" in resource
    assert traced.outcomes == {"exported": 2}
    assert {post.path for post in collector.posts} == {"/v1/traces"}


def test_what_is_refused_is_counted_and_what_is_to_be_tried_again_is() -> None:
    partial = ExportTraceServiceResponse()
    partial.partial_success.rejected_spans = 2
    with receiving() as collector:
        collector.replies += [(503, {"retry-after": "0"}, b""), (200, {}, partial.SerializeToString()), (400, {}, b"")]
        traced = Traced(collector.endpoint, Pace(every=0.3, timeout=2.0))
        for _ in range(5):
            traced.tracer.record(SPAN)
        traced.wait("refused", 2)
        traced.tracer.record(SPAN)
        traced.wait("refused", 3)
        traced.tracer.close(1)
    assert traced.outcomes == {"exported": 3, "refused": 3}
    assert [post.answered for post in collector.posts] == [503, 200, 400]
    assert collector.posts[0].raw == collector.posts[1].raw


def test_a_collector_that_stalls_costs_spans_and_no_time_of_ours() -> None:
    with receiving(hang=True) as collector:
        traced = Traced(collector.endpoint, Pace(queue=50, batch=10, every=0.02, timeout=30, patience=30))
        for _ in range(200):
            traced.tracer.record(SPAN)
        traced.wait("queue_full", 1)
        traced.tracer.close(0.2)
        traced.tracer.record(SPAN)
    assert sum(traced.outcomes.values()) == 201
    assert traced.outcomes["exported"] == 0
    assert traced.outcomes["queue_full"] >= 100


def test_nobody_there_is_counted() -> None:
    traced = Traced(f"http://127.0.0.1:{free_port()}", Pace(every=0.02, patience=0.3))
    traced.tracer.record(SPAN)
    traced.wait("unreachable", 1)
    traced.tracer.close(0.5)
    assert traced.outcomes == {"unreachable": 1}


def test_by_tls_and_with_headers_of_a_file_that_is_renewed(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    headers = tmp_path / "headers"
    headers.write_text("x-token: first\n")
    with receiving((cert, key)) as collector:
        traced = Traced(collector.endpoint, ca_file=cert, headers_file=headers)
        traced.tracer.record(SPAN)
        traced.wait("exported", 1)
        headers.write_text("x-token: second\n")
        traced.tracer.record(SPAN)
        traced.wait("exported", 2)
        traced.tracer.close(1)
        unknown = Traced(collector.endpoint, Pace(every=0.02, patience=0.3))
        unknown.tracer.record(SPAN)
        unknown.wait("unreachable", 1)
        unknown.tracer.close(1)
    assert [post.headers["x-token"] for post in collector.posts] == ["first", "second"]


@pytest.mark.parametrize(
    "url", ["collector:4318", "http://user:word@h:1", "http://h", "ftp://h:1", "http://h:1/other", "http://h:1/?a"]
)
def test_a_wrong_address_is_told_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError, match="--otlp") as caught:
        Traced(url)
    assert "word" not in str(caught.value)
