import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logger.seen import Body, Seen, claims_synthetic, clean_path, ends_by_close, is_probe, request_id, trace_parent

TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@given(raw=st.binary(max_size=60))
def test_a_path_is_visible_ascii_and_loses_nothing(raw: bytes) -> None:
    clean = clean_path(raw)
    assert all("!" <= character <= "~" for character in clean)
    if b"%" not in raw:
        assert bytes(int(clean[i + 1 : i + 3], 16) if clean[i] == "%" else ord(clean[i]) for i in starts(clean)) == raw


def starts(clean: str) -> list[int]:
    places, at = [], 0
    while at < len(clean):
        places.append(at)
        at += 3 if clean[at] == "%" else 1
    return places


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/v1/models/m:predict?key=secret", "/v1/models/m:predict"),
        (b"/a%2Fb", "/a%2Fb"),
        ("/modèle".encode(), "/mod%C3%A8le"),
        (b"*", "*"),
        (b"/" + b"x" * 5000, "/" + "x" * 2047),
    ],
)
def test_paths(target: bytes, path: str) -> None:
    assert Seen("GET", target, {}).path == path


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, ("", False)),
        ({b"x-request-id": b"a", b"ce-id": b"b"}, ("a", False)),
        ({b"ce-id": b"b"}, ("b", False)),
        ({b"x-request-id": b"", b"ce-id": b"b"}, ("b", False)),
        ({b"x-request-id": b"has space", b"ce-id": b"b"}, ("b", True)),
        ({b"x-request-id": b"x" * 128}, ("x" * 128, False)),
        ({b"x-request-id": b"x" * 129}, ("", True)),
        ({b"x-request-id": b"\xe9"}, ("", True)),
    ],
)
def test_the_clients_id_is_the_first_fit_one(headers: dict[bytes, bytes], expected: tuple[str, bool]) -> None:
    assert request_id(headers) == expected


@pytest.mark.parametrize(
    ("raw", "kept"), [(TRACE, TRACE.decode()), (TRACE.upper(), ""), (TRACE + b"-x", ""), (b"nonsense", "")]
)
def test_a_traceparent_is_one_or_nothing(raw: bytes, kept: str) -> None:
    assert trace_parent({b"traceparent": raw}) == kept


def test_only_a_bodiless_get_is_kubelets_probe() -> None:
    agent = {b"user-agent": b"kube-probe/1.31"}
    assert is_probe("GET", agent)
    assert not is_probe("POST", agent)
    assert not is_probe("GET", agent | {b"content-length": b"3"})
    assert not is_probe("GET", {b"user-agent": b"curl kube-probe/1"})


def test_both_synthetic_headers_are_claims() -> None:
    assert claims_synthetic({b"x-servelens-synthetic": b""})
    assert claims_synthetic({b"seldon-skip-logging": b"true"})
    assert not claims_synthetic({b"x-request-id": b"1"})


@pytest.mark.parametrize(
    ("headers", "by_close"),
    [
        ({}, True),
        ({b"content-length": b"3"}, False),
        ({b"transfer-encoding": b"gzip, Chunked"}, False),
        ({b"transfer-encoding": b"chunked, gzip"}, True),
        ({b"transfer-encoding": b"gzip", b"content-length": b"3"}, True),
    ],
)
def test_which_responses_only_the_close_can_end(headers: dict[bytes, bytes], by_close: bool) -> None:
    assert ends_by_close(headers) is by_close


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        (b"application/json; charset=utf-8", "application/json; charset=utf-8"),
        (b"a\tb", ""),
        (b"\xff", ""),
        (b"a" * 257, ""),
    ],
)
def test_a_content_type_is_short_printable_ascii(raw: bytes, kept: str) -> None:
    assert Body({b"content-type": raw}).content_type == kept


@pytest.mark.parametrize(
    ("raw", "length"), [(b"12", 12), (b"-1", None), (b"1_0", None), (b"9" * 11, None), (b"", None)]
)
def test_a_header_length_is_a_number_or_nothing(raw: bytes, length: int | None) -> None:
    assert Body({b"inference-header-content-length": raw}).header_length == length


@given(pieces=st.lists(st.text(string.ascii_letters, min_size=1).map(str.encode)))
def test_a_body_is_the_sum_of_its_pieces(pieces: list[bytes]) -> None:
    body = Body({})
    for piece in pieces:
        body.size += len(piece)
        body.keep(piece)
    assert bytes(body.body) == b"".join(pieces)
    assert isinstance(body.body, bytearray) == (len(pieces) > 1)  # not a copy a piece
    assert not body.truncated
    body.size += 1
    assert body.truncated
