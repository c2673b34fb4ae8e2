"""Spans to a collector: queued without waiting, encoded and sent by a thread of their own. The only OpenTelemetry here.

The messages of `opentelemetry-proto` are filled in directly. The SDK has no public way to export a span of another
time and id (`ReadableSpan` is not for callers to make), its exporter adds whatever headers OTEL_* holds and leaves
spans a collector has rejected uncounted; it costs five times the time, and twice the memory, in processes that count
both. Nothing of OpenTelemetry or protobuf is imported before a `Tracer` is made.

Retries and partial success: OTLP 1.x, OTLP/HTTP. Called by the recorder and the shipper, with `--otlp`.
"""

import gzip
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from servelens import __version__
from servelens.contract.tracecontext import Attribute, SpanValues, TraceContext
from servelens.io.otlp import Answer, Collector, OtlpSettings

log = logging.getLogger(__name__)

# What became of spans, as the metric's `result`: taken by the collector; not queued, since the queue was full; not
# taken, by its answer; no answer in time; still here at the end; a fault of ours.
Outcome = Literal["exported", "queue_full", "refused", "unreachable", "closed", "failed"]
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)

SCOPE: Final = "servelens"
SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"
_RETRIED: Final = frozenset({429, 502, 503, 504})
_FIRST_PAUSE, _LAST_PAUSE = 0.5, 5.0  # seconds between tries
_KINDS: Final = {"server": 2, "producer": 4}  # Span.SpanKind
_ERROR: Final = 2  # Status.StatusCode
_KNOWN, _REMOTE = 0x100, 0x200  # SpanFlags: whether the parent's, or the linked span's, remoteness is known, and is so
_FIELDS: Final = {bool: "bool_value", int: "int_value", float: "double_value", str: "string_value"}


@dataclass(frozen=True, slots=True)
class Pace:
    """Bounds. `queue` counts spans, and a further one for every eight links a span has; seconds otherwise."""

    queue: int = 2048
    batch: int = 512
    every: float = 1.0  # how long a span waits for others at most
    timeout: float = 10.0  # of one POST
    patience: float = 30.0  # with one batch
    complain_every: float = 60.0


def _put(target: Any, attributes: Iterable[tuple[str, Attribute]]) -> None:
    for name, value in attributes:
        setattr(target.add(key=name).value, _FIELDS[type(value)], value)


def _fill(span: Any, values: SpanValues) -> None:
    context = values.context
    span.trace_id, span.span_id = bytes.fromhex(context.traceid), bytes.fromhex(context.spanid)
    span.trace_state, span.flags = context.tracestate, context.flags | _KNOWN
    if context.parentid:
        span.parent_span_id = bytes.fromhex(context.parentid)
        span.flags |= _REMOTE
    span.name, span.kind = values.name, _KINDS[values.kind]
    span.start_time_unix_nano, span.end_time_unix_nano = values.start_ns, values.end_ns
    _put(span.attributes, values.attributes)
    for link in values.links:
        _link(span.links.add(), link)
    span.dropped_links_count = values.dropped_links
    if values.failed:
        span.status.code = _ERROR


def _link(target: Any, context: TraceContext) -> None:
    target.trace_id, target.span_id = bytes.fromhex(context.traceid), bytes.fromhex(context.spanid)
    target.flags = context.flags | _KNOWN | _REMOTE


def _weight(values: SpanValues) -> int:
    return 1 + len(values.links) // 8


class Tracer:
    """Takes spans and sees them off. ConfigError for settings that are wrong; after that nothing here raises.

    `count` is told how many spans came to which outcome, from either thread.
    """

    def __init__(
        self,
        settings: OtlpSettings,
        service: str,
        resource: Mapping[str, str],
        count: Callable[[Outcome, int], None] = lambda _outcome, _spans: None,
        pace: Pace = Pace(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

        self._message = trace_service_pb2.ExportTraceServiceRequest
        self._answer = trace_service_pb2.ExportTraceServiceResponse
        self._collector = Collector(settings)
        self._resource = {"service.name": service, "service.version": __version__, **resource}
        self._count, self._pace, self._clock = count, pace, clock
        self._waiting: deque[SpanValues] = deque()
        self._put_in = self._taken_out = 0  # weights; each is written by one thread
        self._wake, self._closing = threading.Event(), threading.Event()
        self._deadline = float("inf")
        self._complained, self._lost = -pace.complain_every, 0
        self._thread = threading.Thread(target=self._run, name="otlp", daemon=True)
        self._thread.start()

    def record(self, values: SpanValues) -> None:
        """Queue one span, or count it if there is no room; for one thread to call. What is not sampled is nothing."""
        if not values.context.sampled:
            return
        weight = _weight(values)
        if self._closing.is_set():
            self._count("closed", 1)
        elif self._put_in - self._taken_out + weight > self._pace.queue:
            self._count("queue_full", 1)
        else:
            self._put_in += weight
            self._waiting.append(values)
            if len(self._waiting) == self._pace.batch:
                self._wake.set()

    def close(self, grace: float) -> None:
        """Send what is here within `grace` seconds, count what is left, end the thread."""
        self._deadline = self._clock() + grace
        self._closing.set()
        self._wake.set()
        self._thread.join(grace)
        if self._thread.is_alive():
            self._collector.abort()
            self._thread.join(0.5)
        left = len(self._waiting)
        self._waiting.clear()
        if left:
            self._count("closed", left)

    # -- the thread

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(self._pace.every)
            self._wake.clear()
            self._send_waiting()
        self._collector.abort()

    def _send_waiting(self) -> None:
        """Send as many as are here now; those that come meanwhile may wait for company."""
        left = len(self._waiting)
        while left > 0 and self._clock() < self._deadline:
            batch = [self._waiting.popleft() for _ in range(min(left, self._pace.batch))]
            left -= len(batch)
            self._taken_out += sum(map(_weight, batch))
            try:
                self._deliver(batch)
            except Exception as error:  # noqa: BLE001 - the top of the one task: counted, and the next batch is tried
                self._lose("failed", len(batch), type(error).__name__)

    def _deliver(self, batch: list[SpanValues]) -> None:
        body = self._encoded(batch)
        end, pause = self._clock() + self._pace.patience, _FIRST_PAUSE
        while True:
            until = min(end, self._deadline)
            answer = self._collector.post(body, max(min(self._pace.timeout, until - self._clock()), 0.01))
            if answer.status is not None and answer.status not in _RETRIED:
                self._settle(answer, len(batch))
                return
            pause_now = min(pause if answer.retry_after is None else answer.retry_after, self._pace.patience)
            if self._clock() + pause_now >= min(end, self._deadline) or self._closing.wait(pause_now):
                self._lose("unreachable", len(batch), answer.problem or f"status {answer.status}")
                return
            pause = min(pause * 2, _LAST_PAUSE)

    def _encoded(self, batch: list[SpanValues]) -> bytes:
        message = self._message()
        of_resource = message.resource_spans.add(schema_url=SCHEMA)
        _put(of_resource.resource.attributes, self._resource.items())
        of_scope = of_resource.scope_spans.add(schema_url=SCHEMA)
        of_scope.scope.name, of_scope.scope.version = SCOPE, __version__
        for values in batch:
            _fill(of_scope.spans.add(), values)
        return gzip.compress(message.SerializeToString(), 1)

    def _settle(self, answer: Answer, spans: int) -> None:
        if answer.status != 200:
            self._lose("refused", spans, f"status {answer.status}")
            return
        rejected = min(self._rejected(answer.body), spans)
        if rejected:
            self._lose("refused", rejected, "partial success")
        self._count("exported", spans - rejected)

    def _rejected(self, body: bytes) -> int:
        """How many spans a 200 did not take; a body that is no protobuf, as of a JSON collector, rejects none."""
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it has no types

        try:
            return max(int(self._answer.FromString(body).partial_success.rejected_spans), 0)
        except DecodeError:
            return 0

    def _lose(self, outcome: Outcome, spans: int, problem: str) -> None:
        self._lost += spans
        self._count(outcome, spans)
        now = self._clock()
        if now - self._complained >= self._pace.complain_every:
            self._complained = now
            extra = {"collector": str(self._collector), "reason": outcome, "problem": problem, "spans": self._lost}
            log.warning("spans lost", extra=extra)
