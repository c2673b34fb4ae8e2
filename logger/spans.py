"""Spans from recorded times: an exchange as one SERVER span, the rows one look found acknowledged as a PRODUCER span.

Apart from `servelens.io.tracing`, which exports them: values in, values out, no clock. Nothing a client wrote freely is
in a span: no body, header or query, a path only where it is an inference path and nothing stands before it, a method
only if it is one. Names follow OpenTelemetry's semantic conventions 1.44 (HTTP server spans, messaging spans, gRPC).
Called by the recorder (`exchange_span`, `onward`) and the shipper (`Sends`).
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

from logger.backlog import Position
from servelens.contract.events import Exchange, Half
from servelens.contract.identity import ModelIdentity
from servelens.contract.tracecontext import (
    Attribute,
    Attributes,
    SpanValues,
    TraceContext,
    is_own,
    read_traceparent,
    span_id,
)

MAX_LINKS: Final = 128  # OpenTelemetry's default limit; the rest is counted
_TEXT_LIMIT: Final = 256  # characters of what a client has named
# Semantic conventions, http.request.method: any other is told as _OTHER.
_METHODS: Final = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
# Pattern of a path's end, template; what an ingress left before it is cut off. `{verb}` is from a closed list.
_MODEL, _VERSION = r"/models/[^/:]+", r"/versions/[^/:]+"
_V1_VERBS, _V2_VERBS = ":(predict|explain)/?", "/(infer|explain|generate|generate_stream)/?"
_OPENAI: Final = "completions|chat/completions|embeddings|rerank|responses"
_GRPC: Final = "/inference.GRPCInferenceService"
_ROUTES: Final[Sequence[tuple[re.Pattern[str], str]]] = tuple(
    (re.compile(pattern + r"\Z"), template)
    for pattern, template in (
        (f"/v1{_MODEL}{_V1_VERBS}", "/v1/models/{model}:{verb}"),
        (f"/v1{_MODEL}{_VERSION}{_V1_VERBS}", "/v1/models/{model}/versions/{version}:{verb}"),
        (f"/v2{_MODEL}{_V2_VERBS}", "/v2/models/{model}/{verb}"),
        (f"/v2{_MODEL}{_VERSION}{_V2_VERBS}", "/v2/models/{model}/versions/{version}/{verb}"),
        (f"/openai/v1/({_OPENAI})", "/openai/v1/{verb}"),
        (f"{re.escape(_GRPC)}/(ModelInfer|ModelStreamInfer)", _GRPC + "/{verb}"),
    )
)
# gRPC's status codes by number, and those that are the server's fault (semantic conventions, gRPC server spans).
_GRPC_CODES: Final = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
_GRPC_FAULTS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)


class Route(NamedTuple):
    """`template` is empty where the path is no inference path, `whole` false where something stands before it."""

    template: str
    whole: bool


def route_of(path: str) -> Route:
    """What a path asks for, without the names in it."""
    for pattern, template in _ROUTES:
        if match := pattern.search(path):
            return Route(template.replace("{verb}", match[1]), match.start() == 0)
    return Route("", whole=False)


def service_of(identity: ModelIdentity) -> str:
    """The `service.name` whose server spans these are: KServe's name for the component's Service, or ours."""
    name = identity.inferenceservice
    return f"{name}-{identity.component}" if name else "servelens-logger"


def resource_of(identity: ModelIdentity) -> dict[str, str]:
    """The resource's attributes that are known of a component, without its name."""
    known = {
        "service.namespace": identity.namespace,
        "k8s.namespace.name": identity.namespace,
        "servelens.inferenceservice": identity.inferenceservice,
        "servelens.component": identity.component,
        "servelens.revision": identity.revision,
    }
    return {name: value for name, value in known.items() if value}


@lru_cache(maxsize=256)
def _whose(identity: ModelIdentity) -> Attributes:
    parts = (
        ("servelens.namespace", identity.namespace),
        ("servelens.inferenceservice", identity.inferenceservice),
        ("servelens.component", identity.component),
        ("servelens.revision", identity.revision),
        ("servelens.modelname", identity.modelname[:_TEXT_LIMIT]),
    )
    found: list[tuple[str, Attribute]] = [(name, value) for name, value in parts if value]
    if identity.namespace and identity.inferenceservice:
        # The Service KServe makes for a component, in all its modes; the Host header is not kept.
        found.append(("server.address", f"{service_of(identity)}.{identity.namespace}"))
    return tuple(found)


@lru_cache(maxsize=1024)
def _asked(method: str, path: str) -> tuple[str, Attributes]:
    """A span's name, and the attributes that follow from the request line."""
    known = method if method in _METHODS else "_OTHER"
    route = route_of(path)
    found: list[tuple[str, Attribute]] = [("http.request.method", known), ("url.scheme", "http")]
    if route.template:
        found.append(("http.route", route.template))
        if route.whole and len(path) <= _TEXT_LIMIT:
            found.append(("url.path", path))
    name = known if known != "_OTHER" else "HTTP"
    return f"{name} {route.template}".rstrip(), tuple(found)


def _fault(exchange: Exchange, grpc: str) -> str:
    """The `error.type` of what went wrong on the server's side, else empty."""
    if exchange.status is None:
        return "no_response"
    if exchange.status >= 500:
        return str(exchange.status)
    return grpc if grpc in _GRPC_FAULTS else ""


def _sizes(request: Half | None, response: Half | None) -> Iterable[tuple[str, Attribute]]:
    if request is not None:
        yield "http.request.body.size", request.size
    if response is not None:
        yield "http.response.body.size", response.size


def _became(exchange: Exchange) -> tuple[list[tuple[str, Attribute]], bool]:
    """The attributes that follow from the answer, and whether the server failed."""
    found: list[tuple[str, Attribute]] = [("servelens.exchangeid", exchange.exchangeid)]
    if exchange.status is not None:
        found.append(("http.response.status_code", exchange.status))
    grpc = ""
    if exchange.grpcstatus is not None:
        code = exchange.grpcstatus
        grpc = _GRPC_CODES[code] if 0 <= code < len(_GRPC_CODES) else str(code)
        found += ("rpc.system.name", "grpc"), ("rpc.response.status_code", grpc)
    fault = _fault(exchange, grpc)
    if fault:
        found.append(("error.type", fault))
    found += _sizes(exchange.request, exchange.response)
    if exchange.redacted:
        found.append(("servelens.redacted", len(exchange.redacted)))  # how many: their names are a client's
    if exchange.claimedsynthetic:
        found.append(("servelens.claimedsynthetic", True))
    if exchange.protocol:
        found.append(("servelens.protocol", exchange.protocol))
    return found, bool(fault)


def exchange_span(exchange: Exchange, context: TraceContext) -> SpanValues:
    """The SERVER span of an exchange, from its head's arrival to its last byte; the client's span is its parent."""
    name, asked = _asked(exchange.method, exchange.path)
    became, failed = _became(exchange)
    start = exchange.arrived_us * 1000
    return SpanValues(
        name=name,
        kind="server",
        context=context,
        start_ns=start,
        end_ns=start + (exchange.duration_us or 0) * 1000,
        attributes=asked + _whose(exchange.identity) + tuple(became),
        failed=failed,
    )


def onward(exchange: Exchange, context: TraceContext) -> str:
    """The traceparent the event carries: the exchange's own span if it is recorded, else the client's as it came."""
    return context.traceparent if context.sampled else exchange.traceparent


def recorded_in(headers: Iterable[tuple[str, bytes]]) -> TraceContext | None:
    """The span context of a spooled event whose exchange was recorded; None for any other."""
    traceparent = exchangeid = b""
    for name, value in headers:
        if name == "ce_traceparent":
            traceparent = value
        elif name == "ce_exchangeid":
            exchangeid = value
    context = read_traceparent(traceparent.decode("latin-1")) if traceparent else None
    if context is None or not context.sampled or not is_own(context, exchangeid.decode("latin-1")):
        return None
    return context


def batch_span(
    topic: str, contexts: Iterable[TraceContext], start_ns: int, end_ns: int, messages: int | None = None
) -> SpanValues:
    """The PRODUCER span of rows sent to a topic and acknowledged together, linked to the recorded exchanges in them.

    A trace of its own, since its rows are of many. `messages` counts all rows, recorded or not; None = the contexts.
    """
    given = list(contexts)
    unique = tuple({context.spanid: context for context in given}.values())  # both halves of an exchange name one span
    seed = "\n".join((topic, str(start_ns), str(end_ns), *(context.spanid for context in unique)))
    traceid = blake2b(seed.encode(), digest_size=16).hexdigest()
    return SpanValues(
        name=f"send {topic}",
        kind="producer",
        context=TraceContext(traceid, span_id(traceid, "batch"), sampled=True, random=True),
        start_ns=start_ns,
        end_ns=max(end_ns, start_ns),
        attributes=(
            ("messaging.system", "kafka"),
            ("messaging.destination.name", topic),
            ("messaging.operation.name", "send"),
            ("messaging.operation.type", "send"),
            ("messaging.batch.message_count", len(given) if messages is None else messages),
        ),
        links=unique[:MAX_LINKS],
        dropped_links=max(len(unique) - MAX_LINKS, 0),
    )


class Sends:
    """The recorded exchanges among the rows under way; as many as the flight has rows."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._away: dict[Position, tuple[TraceContext, int]] = {}

    def sent(self, position: Position, headers: Iterable[tuple[str, bytes]], now_ns: int) -> None:
        """A row was given to the client at this Unix time."""
        context = recorded_in(headers)
        if context is not None:
            self._away[position] = context, now_ns

    def landed(self, positions: Sequence[Position], now_ns: int) -> SpanValues | None:
        """The span of rows found acknowledged, since the first of the recorded ones was sent; None if none was."""
        if not self._away:
            return None
        found = [self._away.pop(position) for position in positions if position in self._away]
        if not found:
            return None
        return batch_span(
            self._topic, [context for context, _ in found], min(at for _, at in found), now_ns, len(positions)
        )

    def forget(self) -> None:
        """The producer has ended: what is sent again is a sending of its own."""
        self._away.clear()
