"""Messages for byte scripts: HTTP/1.x put together from parts, and bytes that are none.

Written without a parser: what an observer must make of a good message is kept beside it. The bad ones follow RFC 9112's
ways to be wrong, and those in which parsers are known to differ.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

METHODS: Final = ("GET", "GET", "POST", "POST", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD", "PROPFIND")
WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH", "PROPFIND", "DELETE"})
PATHS: Final = ("/v1/models/income:predict", "/v2/models/m/infer", "/", "/a%20b/c", "/~x;p=1", "/v2/health/ready")
STATUSES: Final = (200, 200, 200, 200, 201, 204, 206, 304, 400, 404, 422, 500, 503, 299, 599)
INFORMATIONAL: Final = (
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\n\r\n",
)
SWITCHING: Final = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
_FILLINGS: Final = (
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x00",
    b"\xff\n",
    b"a",
)
BULK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Request:
    raw: bytes
    method: str
    path: str
    body: bytes
    requestid: str
    head: int  # bytes before the body


@dataclass(frozen=True, slots=True)
class Response:
    raw: bytes
    status: int
    body: bytes
    head: int
    by_close: bool = False  # it has no other end


def body(random: Random, largest: int = 600) -> bytes:
    size = random.choice((0, 1, random.randrange(1, 60), random.randrange(1, largest)))
    filling = random.choice(_FILLINGS)
    return (filling * (size // len(filling) + 1))[:size]


def _cased(random: Random, name: str) -> str:
    return random.choice((name, name, name.lower(), name.upper(), name.swapcase()))


def _lines(random: Random, start: str, fields: list[tuple[str, str]]) -> bytes:
    random.shuffle(fields)
    lines = [start]
    for name, value in fields:
        spaces = random.choice((" ", " ", "", "  ", "\t"))
        after = "" if name == "X-Request-Id" else random.choice(("", "", " "))  # the id is what finds the record
        lines.append(f"{_cased(random, name)}:{spaces}{value}{after}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def chunked(random: Random, data: bytes) -> bytes:
    """A body in chunks, sizes written in several ways, with extensions and trailers at times."""
    out, start = b"", 0
    while start < len(data):
        size = random.randrange(1, len(data) - start + 1)
        written = random.choice((b"%x", b"%X", b"00%x")) % size
        extension = random.choice((b"", b"", b"", b";name=value", b";a;b", b';quoted="v w"'))
        out += written + extension + b"\r\n" + data[start : start + size] + b"\r\n"
        start += size
    trailer = random.choice((b"", b"", b"", b"X-Sum: 1\r\n", b"x-request-id: trailer\r\ncontent-type: t\r\n"))
    return out + random.choice((b"0", b"0", b"000")) + b"\r\n" + trailer + b"\r\n"


def request(random: Random, requestid: str = "", *, last: bool = False, with_body: bool | None = None) -> Request:
    """A request that is well-formed; only the `last` may say that it is."""
    method = random.choice(METHODS)
    if with_body:
        method = random.choice(("POST", "PUT"))
    path = random.choice(PATHS)
    fields = [("Host", "model.ns.svc"), ("Accept", "*/*")]
    fields += [("X-Request-Id", requestid)] if requestid else []
    fields += random.choice(([], [("Content-Type", "application/json")], [("Cookie", "a=b"), ("Cookie", "c=d")]))
    version, framing, data = "1.1", "none", b""
    if last and random.random() < 0.3:
        version = random.choice(("1.0", "1.1"))
        fields.append(("Connection", "close"))
    if method in WITH_BODY and (with_body or random.random() < 0.9):
        framing = random.choice(("length", "chunked")) if version == "1.1" else "length"
        data = body(random) or (b"b" if with_body else b"")
    head, raw = _framed(
        random, f"{method} {path}{random.choice(('', '?q=1&t=s'))} HTTP/{version}", fields, data, framing
    )
    return Request(head + raw, method, path, data, requestid, len(head))


def response(random: Random, method: str, *, last: bool = False) -> Response:
    """An answer to `method`; only the `last` may end with its connection."""
    status = random.choice(STATUSES)
    fields = [("Server", "uvicorn"), ("Date", "Mon, 01 Jan 2024 00:00:00 GMT")]
    fields += random.choice(
        ([], [("Content-Type", "application/json")], [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    )
    reason = random.choice(("OK", "", "Said So", "\xfcber"))
    start = f"HTTP/1.1 {status} {reason}"
    framing, data, by_close = "none", b"", False
    if method == "HEAD":
        fields.append(random.choice((("Content-Length", "12345"), ("Transfer-Encoding", "chunked"))))
    elif status not in (204, 304):
        by_close = last and random.random() < 0.5
        framing = "none" if by_close else random.choice(("length", "chunked"))
        data = body(random)
    if by_close and random.random() < 0.5:
        start = f"HTTP/1.0 {status} {reason}"
    head, raw = _framed(random, start, fields, data, framing)
    return Response(head + raw, status, data, len(head), by_close)


def _framed(
    random: Random, start: str, fields: list[tuple[str, str]], data: bytes, framing: str
) -> tuple[bytes, bytes]:
    if framing == "length":
        return _lines(random, start, [*fields, ("Content-Length", str(len(data)))]), data
    if framing == "chunked":
        return _lines(random, start, [*fields, ("Transfer-Encoding", "chunked")]), chunked(random, data)
    return _lines(random, start, fields), data


def bulk(random: Random, requestid: str, *, up: int, down: int) -> tuple[Request, Response]:
    """An exchange with bodies of these sizes."""
    sent, told = random.randbytes(up), random.randbytes(down)
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nX-Request-Id: %b\r\n" % requestid.encode()
    head += b"Content-Length: %d\r\n\r\n" % up
    start = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % down
    return (
        Request(head + sent, "POST", "/v2/models/m/infer", sent, requestid, len(head)),
        Response(start + told, 200, told, len(start)),
    )


# Bytes that are no HTTP/1.1, or not without doubt.

_POST: Final = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: h\r\n"
_OK: Final = b"HTTP/1.1 200 OK\r\n"
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n\r\n"

BAD_REQUESTS: Final[tuple[bytes, ...]] = (
    b"G\x00T / HTTP/1.1\r\n\r\n",
    b"get / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"FROBNICATE / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET  /two spaces HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET / HTTP/1.1\nHost: h\n\n",
    b"GET / HTTP/1.1\rHost: h\r\r",
    b"GET /\r\n\r\n",
    b"GET / HTTP/9.7\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : h\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\n folded: yes\r\n\tagain\r\n\r\n",
    b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n",
    b"GET / HTTP/1.1\r\n: no name\r\n\r\n",
    b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
    b"GET / HTTP/1.1\r\nX: \xff\xfe\x80\r\n\r\n",
    b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
    _POST + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nabcde",
    _POST + b"Content-Length: 3, 3\r\n\r\nabc",
    _POST + b"Content-Length: +3\r\n\r\nabc",
    _POST + b"Content-Length: -1\r\n\r\n",
    _POST + b"Content-Length: 99999999999999999999999\r\n\r\nabc",
    _POST + b"Content-Length: 0x10\r\n\r\n0123456789abcdef",
    _POST + b"Content-Length: 4\r\n" + _CHUNKED + b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
    _POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    _POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    _POST + b"Transfer-Encoding: gzip\r\n\r\nabc",
    _POST + _CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n",
    _POST + _CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n",
    _POST + _CHUNKED + b"3\nabc\n0\n\n",
    _POST + _CHUNKED + b"3\r\nabcdef\r\n0\r\n\r\n",
    _POST + _CHUNKED + b"ffffffffffffffffff\r\nabc",
    _POST + _CHUNKED + b"3 ; a\r\nabc\r\n0\r\n\r\n",
    _POST + _CHUNKED + b"0\r\nbad trailer\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\x00\x00\xff\xff",
    b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + bytes(range(200)),
    b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10",
    b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"\n",
    b"\x00",
    b"\r",
)

BAD_RESPONSES: Final[tuple[bytes, ...]] = (
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\n\r\n",
    b"HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1200 OK\r\n\r\n",
    b"ICY 200 OK\r\n\r\n",
    b"http/1.1 200 ok\r\n\r\n",
    b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    _OK + b"Content-Length: 2\r\nContent-Length: 7\r\n\r\n{}",
    _OK + b"Content-Length: -2\r\n\r\n{}",
    _OK + b"Content-Length: 2\r\n" + _CHUNKED + b"2\r\n{}\r\n0\r\n\r\n",
    _OK + _CHUNKED + b"xyz\r\n",
    _OK + _CHUNKED + b"2\r\n{}0\r\n\r\n",
    _OK + b"X: a\x00b\r\n\r\n",
    _OK + b"X: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
    _OK + b"Content-Length: 0\r\n\r\n" + _OK + b"Content-Length: 0\r\n\r\n",  # one too many
    b"<html>no head at all</html>",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x15\x03\x01\x00\x02\x02\x46",
    b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\x00\x00\xff\xff",
    b"\r\n\r\n",
)


def _many_fields(random: Random) -> bytes:
    return b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(3000)) + b"\r\n"


def _long_target(random: Random) -> bytes:
    return b"GET /" + b"a" * random.choice((9000, 70_000, 140_000)) + b" HTTP/1.1\r\nHost: h\r\n\r\n"


def _long_field(random: Random) -> bytes:
    return b"GET / HTTP/1.1\r\nX: " + b"v" * random.choice((9000, 66_000, 200_000)) + b"\r\n\r\n"


def _long_extension(random: Random) -> bytes:
    return _POST + _CHUNKED + b"1;" + b"e" * random.choice((9000, 90_000)) + b"\r\na\r\n0\r\n\r\n"


def _long_trailer(random: Random) -> bytes:
    return _POST + _CHUNKED + b"0\r\n" + b"T: v\r\n" * random.choice((2000, 20_000)) + b"\r\n"


def _random_bytes(random: Random) -> bytes:
    return random.randbytes(random.randrange(1, 2000))


def _changed(random: Random) -> bytes:
    """A good request with a byte or two exchanged, left out or doubled."""
    raw = bytearray(request(random).raw)
    for _ in range(random.randrange(1, 4)):
        place = random.randrange(len(raw))
        raw[place : place + 1] = random.choice((b"", bytes(raw[place : place + 1] * 2), random.randbytes(1)))
    return bytes(raw) or b"\x00"


_MADE: Final[tuple[Callable[[Random], bytes], ...]] = (
    _many_fields, _long_target, _long_field, _long_extension, _long_trailer, _random_bytes, _changed, _changed, _changed
)  # fmt: skip


def bad_request(random: Random) -> bytes:
    if random.random() < 0.6:
        return random.choice(BAD_REQUESTS)
    return random.choice(_MADE)(random)


def bad_response(random: Random) -> bytes:
    choice = random.random()
    if choice < 0.7:
        return random.choice(BAD_RESPONSES)
    if choice < 0.8:
        return _random_bytes(random)
    if choice < 0.9:
        return _OK + b"X: " + b"v" * random.choice((9000, 66_000, 200_000)) + b"\r\nContent-Length: 0\r\n\r\n"
    raw = bytearray(response(random, "GET").raw)
    raw[random.randrange(len(raw))] = random.randrange(256)
    return bytes(raw)
