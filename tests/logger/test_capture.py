import pytest
from hypothesis import given
from hypothesis import strategies as st

from logger.capture import FRAME_HEAD, FrameReader, decode, encode, frame, hello
from logger.seen import Body, Seen
from servelens.contract.errors import StateError
from servelens.contract.events import Exchange, Half

halves = st.builds(
    Half,
    body=st.binary(max_size=50),
    size=st.integers(0, 2**40),
    truncated=st.booleans(),
    content_type=st.text(max_size=20),
    encoding=st.text(max_size=10),
    header_length=st.none() | st.integers(0, 2**31),
)
exchanges = st.builds(
    Exchange,
    exchangeid=st.uuids().map(str),
    arrived_us=st.integers(0, 2**53),
    method=st.sampled_from(["GET", "POST"]),
    path=st.text(max_size=30),
    status=st.none() | st.integers(100, 999),
    protocol=st.sampled_from(["", "v1"]),
    duration_us=st.none() | st.integers(0, 2**40),
    requestid=st.text(max_size=20),
    traceparent=st.text(max_size=20),
    claimedsynthetic=st.booleans(),
    request=halves,
    response=halves,
)


@given(exchange=exchanges)
def test_an_exchange_comes_back_as_it_was(exchange: Exchange) -> None:
    assert decode(encode(exchange)) == exchange


def test_an_open_exchange_is_encoded_as_it_is() -> None:
    seen = Seen("POST", b"/v2/models/m/infer?q", {b"content-type": b"application/json", b"content-encoding": b"gzip"})
    seen.exchangeid, seen.arrived_us, seen.status, seen.requestid = "id", 5, 200, "r"
    seen.request.size, seen.request.body = 9, bytearray(b"part")
    seen.response = Body({b"inference-header-content-length": b"7"})
    assert decode(encode(seen)) == Exchange(
        exchangeid="id",
        arrived_us=5,
        method="POST",
        path="/v2/models/m/infer",
        status=200,
        requestid="r",
        request=Half(b"part", 9, True, "application/json", "gzip"),
        response=Half(header_length=7),
    )


def test_an_exchange_without_an_answer_has_an_empty_half() -> None:
    assert decode(encode(Seen("GET", b"/", {}))).response == Half()


@given(payloads=st.lists(st.binary(max_size=40), max_size=8), cuts=st.lists(st.integers(0, 400), max_size=8))
def test_frames_are_cut_out_however_the_stream_is_split(payloads: list[bytes], cuts: list[int]) -> None:
    stream = hello("s") + b"".join(frame(number, payload) for number, payload in enumerate(payloads, 1))
    places = sorted({min(cut, len(stream)) for cut in cuts})
    reader, found = FrameReader(), []
    for start, end in zip([0, *places], [*places, len(stream)], strict=True):
        found += list(reader.feed(stream[start:end]))
    assert found == [(0, b'{"stream":"s"}'), *enumerate(payloads, 1)]


def test_a_frame_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(StateError, match="a frame of 11 bytes; the limit is 10"):
        list(FrameReader(limit=10).feed(FRAME_HEAD.pack(11, 1)))


@pytest.mark.parametrize(
    "payload", [b"", b"\x00" * 4, b"\x09\x00\x00\x00\x00\x00\x00\x00not json!", b"\x02\x00\x00\x00\x00\x00\x00\x00[]"]
)
def test_a_payload_of_another_version_says_what_to_do(payload: bytes) -> None:
    with pytest.raises(StateError, match="run tap and recorder from one image"):
        decode(payload)
