"""Trace context: the header read and written, ids derived, and which traces are recorded."""

import random
import subprocess
import sys
from math import sqrt
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servelens.contract.identity import new_exchange_id
from servelens.contract.tracecontext import (
    TraceContext,
    context_of,
    is_own,
    new_trace,
    read_traceparent,
    sampled,
    span_id,
    threshold,
    trace_id,
)

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
EXCHANGE = "01890a5d-ac96-774b-bcce-b302099a8057"

hex_digits = st.text("0123456789abcdef", min_size=1)
trace_ids = st.integers(1, (1 << 128) - 1).map(lambda number: f"{number:032x}")
span_ids = st.integers(1, (1 << 64) - 1).map(lambda number: f"{number:016x}")
contexts = st.builds(TraceContext, trace_ids, span_ids, st.booleans(), st.booleans())
ratios = st.floats(0, 1)


@given(contexts)
def test_what_is_written_is_read_back(context: TraceContext) -> None:
    assert len(context.traceparent) == 55
    assert read_traceparent(context.traceparent) == context


@given(contexts, st.integers(1, 0xFE), st.integers(0, 0xFF), st.text("0123456789abcdef-.", max_size=80))
def test_a_later_version_is_read_as_far_as_it_is_known(
    context: TraceContext, version: int, flags: int, more: str
) -> None:
    head = f"{version:02x}-{context.traceid}-{context.spanid}-{flags:02x}"
    read = TraceContext(context.traceid, context.spanid, bool(flags & 1), bool(flags & 2))
    assert read_traceparent(head) == read
    assert read_traceparent(f"{head}-{more}") == read
    assert read_traceparent(head + "x" + more) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-",  # version 00 has no fifth field
        f"00-{TRACE}-{SPAN}-01-what",
        f"00-{TRACE}-{SPAN}-1",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}-{SPAN}-０1",
        f"01-{TRACE}-{SPAN}-01-" + "a" * 500,
    ],
)
def test_what_is_no_traceparent_is_as_if_it_were_missing(text: str) -> None:
    assert read_traceparent(text) is None
    assert context_of(EXCHANGE, text, 1.0) == context_of(EXCHANGE, "", 1.0)


@given(st.text(max_size=90))
def test_no_text_makes_reading_fail(text: str) -> None:
    read = read_traceparent(text)
    assert read is None or text.startswith(text[:3] + read.traceid)


def test_unknown_flags_are_not_passed_on() -> None:
    read = read_traceparent(f"00-{TRACE}-{SPAN}-ff")
    assert read == TraceContext(TRACE, SPAN, sampled=True, random=True)
    assert read.traceparent == f"00-{TRACE}-{SPAN}-03"


@given(trace_ids, ratios, ratios)
def test_what_is_recorded_at_a_ratio_is_recorded_at_every_higher_one(traceid: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert sampled(traceid, high) or not sampled(traceid, low)
    assert sampled(traceid, 1.0)
    assert not sampled(traceid, 0.0)


@pytest.mark.parametrize(
    ("ratio", "rejected"),
    [(1.0, 0), (0.5, 1 << 55), (0.25, 3 << 54), (0.0, 1 << 56), (2.0**-56, (1 << 56) - 1)],
)
def test_the_threshold_is_the_one_of_otep_235(ratio: float, rejected: int) -> None:
    assert threshold(ratio) == rejected
    if 0 < rejected < 1 << 56:
        assert sampled(f"{rejected:032x}", ratio)
        assert not sampled(f"{rejected - 1:032x}", ratio)
    assert sampled("f" * 18 + "0" * 14, ratio) == (ratio == 1.0)  # only the rightmost 56 bits count


@pytest.mark.parametrize("ratio", [0.001, 0.01, 0.1, 0.5, 0.9])
def test_the_share_of_exchanges_recorded_is_the_ratio(ratio: float) -> None:
    rng, number = random.Random(7), 40_000
    ids = [new_exchange_id(lambda: 1_786_000_000_000, rng.getrandbits) for _ in range(number)]
    kept = sum(context_of(one, "", ratio).sampled for one in ids)
    assert abs(kept - number * ratio) < 4.5 * sqrt(number * ratio * (1 - ratio))
    begun = sum(new_trace(rng.getrandbits, ratio).sampled for _ in range(number))
    assert abs(begun - number * ratio) < 4.5 * sqrt(number * ratio * (1 - ratio))


def test_a_clients_trace_is_kept_and_its_flag_decides_both_ways() -> None:
    for flags, recorded in (("01", True), ("00", False), ("03", True), ("02", False)):
        for ratio in (0.0, 1.0):
            context = context_of(EXCHANGE, f"00-{TRACE}-{SPAN}-{flags}", ratio)
            assert (context.traceid, context.parentid, context.sampled) == (TRACE, SPAN, recorded)
            assert context.random == (flags in ("02", "03"))
            assert context.spanid == span_id(EXCHANGE)
            assert context.tracestate == ""


@pytest.mark.parametrize(("ratio", "state"), [(1.0, "ot=th:0"), (0.5, "ot=th:8"), (0.75, "ot=th:4")])
def test_without_one_the_trace_is_the_exchanges_id_and_says_at_what_ratio(ratio: float, state: str) -> None:
    context = context_of("01890a5d-ac96-774b-bcff-ffffffffffff", "", ratio)
    assert context.traceid == UUID("01890a5d-ac96-774b-bcff-ffffffffffff").hex
    assert (context.sampled, context.random, context.parentid, context.tracestate) == (True, True, "", state)


def test_the_exchanges_span_can_be_named_by_anyone() -> None:
    assert span_id(EXCHANGE) == "fc113e5c9642ef13"
    assert context_of(EXCHANGE, "", 0.0).spanid == context_of(EXCHANGE, f"00-{TRACE}-{SPAN}-01", 0.0).spanid
    assert span_id(EXCHANGE, "batch") != span_id(EXCHANGE)


@given(st.text(max_size=60))
def test_any_id_gives_ids_that_are_valid(exchangeid: str) -> None:
    context = context_of(exchangeid, "", 1.0)
    assert read_traceparent(context.traceparent) == TraceContext(
        context.traceid, context.spanid, sampled=True, random=True
    )
    assert is_own(context, exchangeid)


def test_an_id_that_is_no_uuid_is_hashed() -> None:
    assert trace_id("e-1") != trace_id("e-2")
    assert trace_id(str(UUID(int=0))) != "0" * 32
    assert trace_id(EXCHANGE.upper()) == trace_id(EXCHANGE)


@given(st.integers(0), ratios)
def test_the_exchanges_span_is_the_one_an_inserted_header_names(seed: int, ratio: float) -> None:
    begun = new_trace(random.Random(seed).getrandbits, ratio)
    context = context_of(EXCHANGE, begun.traceparent, ratio)
    assert (context.traceid, context.spanid, context.parentid) == (begun.traceid, begun.spanid, "")
    assert context.sampled == begun.sampled == sampled(begun.traceid, ratio)
    assert bool(context.tracestate) == begun.sampled
    assert is_own(context, EXCHANGE)


def test_a_clients_span_is_not_taken_for_the_exchanges() -> None:
    client = read_traceparent(f"00-{TRACE}-{SPAN}-01")
    assert client is not None
    assert not is_own(client, EXCHANGE)


def test_a_trace_id_is_never_zero() -> None:
    assert new_trace(lambda _: 0, 1.0).traceid == f"{1:032x}"


def test_it_needs_the_standard_library_only() -> None:
    code = (
        "import sys, servelens.contract.tracecontext\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('orjson', 'numpy', 'google', 'opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"
