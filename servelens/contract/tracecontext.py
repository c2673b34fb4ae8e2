"""Trace context: W3C `traceparent` read and written, which exchanges are recorded as spans, and a span as values.

Everything here follows from an exchange's id and the client's header, so that the recorder, the shipper and any
consumer of an event name the same span without telling each other. Called by the logger's `spans`; what is recorded
goes to `servelens.io.tracing`, the only place that knows OpenTelemetry.

Decision, as OpenTelemetry's parent-based sampler takes it: where the client sent a valid traceparent, its sampled flag
decides, both ways, so that no trace has holes or strays; the ratio is for exchanges without one. A ratio of 0 therefore
records what clients ask for and nothing else.

Where the tap inserts the header (`--add-request-id`), it is we who begin the trace, and the header says so: its span id
follows from its trace id. The exchange's span takes that id, so what the predictor records hangs below it.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal, TypeAlias

Attribute: TypeAlias = "str | int | float | bool"
Attributes: TypeAlias = tuple[tuple[str, Attribute], ...]
SpanKind = Literal["server", "producer"]

SAMPLED: Final = 0x01  # W3C Trace Context 3.2.2.5
RANDOM: Final = 0x02  # level 2: the trace id's rightmost 56 bits are random
_RANDOM_BITS: Final = 56
_SPACE: Final = 1 << _RANDOM_BITS
_LIMIT: Final = 512  # characters; a later version may be longer than 55, not without end
# Versions after 00 may append fields, each after a dash; the first four stay (W3C Trace Context 3.2.4 and level 2).
_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")
_BEGUN: Final = "begun"  # the kind of span id that `new_trace` derives
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One span's place in a trace; ids are lowercase hex of 32 and 16 digits, never all zero.

    `parentid` is the span above it, in another process, empty for a root. `tracestate` is what our own decision adds
    (`ot=th:…`, OTEP 235), empty where the client decided.
    """

    traceid: str
    spanid: str
    sampled: bool
    random: bool = False
    parentid: str = ""
    tracestate: str = ""

    @property
    def flags(self) -> int:
        """The trace-flags octet."""
        return SAMPLED * self.sampled | RANDOM * self.random

    @property
    def traceparent(self) -> str:
        """The header of version 00 that names this span."""
        return f"00-{self.traceid}-{self.spanid}-{self.flags:02x}"


@dataclass(frozen=True, slots=True)
class SpanValues:
    """A span to be exported: times in Unix nanoseconds; `failed` is status Error, else the status is left unset."""

    name: str
    kind: SpanKind
    context: TraceContext
    start_ns: int
    end_ns: int
    attributes: Attributes = ()
    links: tuple[TraceContext, ...] = ()
    dropped_links: int = 0
    failed: bool = False


def read_traceparent(text: str) -> TraceContext | None:
    """The context a traceparent names; None for what is none, which by the specification is as if it were missing."""
    match = _FORM.fullmatch(text) if len(text) <= _LIMIT else None
    if match is None:
        return None
    version, traceid, spanid, flags, more = match.groups()
    if version == "ff" or (version == "00" and more is not None) or traceid == _NO_TRACE or spanid == _NO_SPAN:
        return None
    octet = int(flags, 16)
    return TraceContext(traceid, spanid, bool(octet & SAMPLED), bool(octet & RANDOM))


@lru_cache(maxsize=16)
def threshold(ratio: float) -> int:
    """How many of the 2**56 values of a trace id's random bits are rejected at a ratio from 0 to 1 (OTEP 235)."""
    return _SPACE - round(ratio * _SPACE)


def sampled(traceid: str, ratio: float) -> bool:
    """Whether a trace is recorded at this ratio; what is at one ratio is at every higher one.

    The same rule on the same bits wherever it is applied: whoever samples by OTEP 235 keeps the same traces.
    """
    return int(traceid[-14:], 16) >= threshold(ratio)


@lru_cache(maxsize=16)
def _tracestate(ratio: float) -> str:
    """The threshold as OTEP 235 writes it: hex digits without trailing zeros, at least one."""
    return f"ot=th:{f'{threshold(ratio):014x}'.rstrip('0') or '0'}"


def span_id(exchangeid: str, kind: str = "exchange") -> str:
    """The id of an exchange's own span, or of another `kind` of span about it: 16 hex digits, never all zero."""
    digest = hashlib.blake2b(f"{kind}\n{exchangeid}".encode(), digest_size=8).hexdigest()
    return digest if digest != _NO_SPAN else f"{1:016x}"


def trace_id(exchangeid: str) -> str:
    """The trace of an exchange that no client's trace holds: its UUID's bits, of which the last 62 are random.

    An id that is no UUID, as foreign events may have one, is hashed.
    """
    bare = exchangeid.replace("-", "").lower()
    if _TRACE_ID.fullmatch(bare) and bare != _NO_TRACE:
        return bare
    return hashlib.blake2b(exchangeid.encode(), digest_size=16).hexdigest()


def new_trace(random_bits: Callable[[int], int], ratio: float) -> TraceContext:
    """A trace that begins here, for a request that came without a context; what is inserted is its `traceparent`."""
    traceid = f"{random_bits(128) or 1:032x}"
    return TraceContext(traceid, span_id(traceid, _BEGUN), sampled(traceid, ratio), random=True)


def context_of(exchangeid: str, traceparent: str, ratio: float) -> TraceContext:
    """The context of an exchange's own span, and whether it is recorded; total: a bad traceparent counts as none."""
    given = read_traceparent(traceparent) if traceparent else None
    if given is None:
        traceid = trace_id(exchangeid)
        given = TraceContext(traceid, span_id(exchangeid), sampled(traceid, ratio), random=True)
    elif not _begun_here(given):
        return TraceContext(given.traceid, span_id(exchangeid), given.sampled, given.random, parentid=given.spanid)
    return replace(given, tracestate=_tracestate(ratio)) if given.sampled else given


def is_own(context: TraceContext, exchangeid: str) -> bool:
    """Whether this names the exchange's own span, rather than one its client has sent."""
    return context.spanid == span_id(exchangeid) or _begun_here(context)


def _begun_here(context: TraceContext) -> bool:
    return context.spanid == span_id(context.traceid, _BEGUN)
