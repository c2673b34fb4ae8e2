"""Ids inserted into a stream of requests: wherever it is cut, each head that has none gets them, and nothing else."""

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logger.request_ids import RequestIds

NAMES = (b"GET /a HTTP/1.1\r\n", b"POST /v2/models/m/infer HTTP/1.1\r\nhost: h\r\n", b"DELETE /x HTTP/1.1\r\n")
BODIES = (
    b"\r\n",
    b"content-length: 0\r\n\r\n",
    b"content-length: 9\r\n\r\n\r\n\r\nbody\r",
    b"Transfer-Encoding: chunked\r\n\r\n4\r\n\r\n\r\n\r\n0\r\n\r\n",
    b"transfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\ntrailer: t\r\n\r\n",
)
IDS = {b"": (True, True), b"X-Request-Id: mine\r\n": (False, True), b"ce-id: a\r\nTraceparent: b\r\n": (False, False)}


def inserter() -> RequestIds:
    numbers, traces = count(1), count(1)
    return RequestIds(lambda: f"id-{next(numbers)}", lambda: f"tp-{next(traces)}")


def play(data: bytes, cuts: list[int]) -> tuple[bytes, bytes]:
    """What was forwarded before the end, and what on it."""
    ids, out, start = inserter(), b"", 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        out += ids.feed(data[start:cut])
        assert len(data[:cut]) - len(out) <= 3
        start = cut
    return out, ids.flush()


requests = st.tuples(st.sampled_from(NAMES), st.sampled_from(sorted(IDS)), st.sampled_from(BODIES))


@given(st.lists(requests, min_size=1, max_size=5), st.lists(st.integers(0, 2000), max_size=12))
def test_every_head_without_ids_gets_them_wherever_the_stream_is_cut(
    sent: list[tuple[bytes, bytes, bytes]], cuts: list[int]
) -> None:
    expected, number, trace = b"", 0, 0
    for line, own, rest in sent:
        head, _, body = rest.partition(b"\r\n") if rest == b"\r\n" else rest.partition(b"\r\n\r\n")
        lines = b""
        if IDS[own][0]:
            number += 1
            lines += b"x-request-id: id-%d\r\n" % number
        if IDS[own][1]:
            trace += 1
            lines += b"traceparent: tp-%d\r\n" % trace
        expected += line + own + (head + b"\r\n" if head else b"") + lines + b"\r\n" + body
    assert play(b"".join(map(b"".join, sent)), cuts) == (expected, b"")


@given(st.binary(max_size=300), st.lists(st.integers(0, 400), max_size=8))
def test_what_is_no_http_passes_as_it_came(data: bytes, cuts: list[int]) -> None:
    out, held = play(b"\x16" + data, cuts)
    assert out + held == b"\x16" + data


@pytest.mark.parametrize(
    "after", [b"\x81\x05hello\r\n\r\nGET / HTTP/1.1\r\n\r\n", b"GET /next HTTP/1.1\r\n\r\n"], ids=["websocket", "http"]
)
def test_nothing_is_changed_after_a_request_to_leave_http(after: bytes) -> None:
    ids = inserter()
    head = b"GET /ws HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    assert ids.feed(head + b"\r\n" + after) == head + b"x-request-id: id-1\r\ntraceparent: tp-1\r\n\r\n" + after
    assert ids.feed(after) == after


def test_a_head_that_turns_malformed_is_left_alone() -> None:
    ids = inserter()
    data = b"GET / HTTP/1.1\r\nbad header\x00: x\r\n\r\nGET / HTTP/1.1\r\n\r\n"
    assert ids.feed(data) + ids.flush() == data
