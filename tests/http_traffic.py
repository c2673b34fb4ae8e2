"""Generated HTTP/1.1 connections: the bytes of both directions, and what an observer must make of them.

Written without a parser: every message is put together from parts that are kept as the expectation.
"""

from dataclasses import dataclass
from random import Random

METHODS = ("GET", "POST", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")
STATUSES = (200, 200, 200, 201, 204, 304, 400, 404, 422, 500, 503)
BODILESS = (204, 304)


@dataclass(frozen=True)
class Turn:
    """One exchange: its bytes, and what there is to see."""

    request: bytes
    response: bytes
    method: str
    path: str
    status: int
    requestid: str
    request_body: bytes
    response_body: bytes
    request_type: str
    response_type: str
    closes: bool = False  # the response has no other end

    def seen(self) -> tuple[object, ...]:
        return (
            self.method,
            self.path,
            self.status,
            self.requestid,
            self.request_body,
            self.response_body,
            self.request_type,
            self.response_type,
        )


def _cased(random: Random, name: str) -> str:
    return random.choice((name, name.lower(), name.upper()))


def _body(random: Random, largest: int) -> bytes:
    size = random.choice((0, 1, random.randrange(1, 60), random.randrange(1, largest)))
    return random.choice((b"\r\n\r\n", b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\n", bytes([random.randrange(256)]))) * size


def _chunked(random: Random, body: bytes) -> bytes:
    out, at = b"", 0
    while at < len(body):
        size = random.randrange(1, len(body) - at + 1)
        extension = random.choice((b"", b"", b";name=value"))
        out += b"%x%b\r\n%b\r\n" % (size, extension, body[at : at + size])
        at += size
    trailer = random.choice((b"", b"", b"x-request-id: trailer\r\ncontent-type: trailer\r\n"))
    return out + b"0\r\n" + trailer + b"\r\n"


def _message(random: Random, start: str, headers: list[tuple[str, str]], body: bytes, framing: str) -> bytes:
    lines = [start, *(f"{_cased(random, name)}:{random.choice(('', ' ', '  '))}{value}" for name, value in headers)]
    if framing == "length":
        lines.append(f"{_cased(random, 'Content-Length')}: {len(body)}")
    elif framing == "chunked":
        lines.append(f"{_cased(random, 'Transfer-Encoding')}: chunked")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head + (_chunked(random, body) if framing == "chunked" else body)


def turn(random: Random, *, last: bool = False, largest: int = 400) -> Turn:
    method = random.choice(METHODS)
    path = random.choice(("/v1/models/income:predict", "/v2/models/m/infer", "/", "/a%20b/c", "/~x"))
    requestid = random.choice(("", f"id-{random.randrange(10**6)}"))
    request_type = random.choice(("", "application/json", "application/octet-stream"))
    headers = [("Host", "h"), ("Authorization", "Bearer secret")]
    headers += [("X-Request-Id", requestid)] if requestid else []
    headers += [("Content-Type", request_type)] if request_type else []
    framing = random.choice(("length", "chunked")) if method in ("POST", "PUT", "PATCH") else "none"
    body = _body(random, largest) if framing != "none" else b""
    target = path + random.choice(("", "?q=1&token=secret"))
    request = _message(random, f"{method} {target} HTTP/1.1", headers, body, framing)

    status = random.choice(STATUSES)
    response_type = random.choice(("", "application/json", "text/event-stream"))
    answer = [("Content-Type", response_type)] if response_type else []
    informational = b"".join(
        random.choice((b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"))
        for _ in range(random.choice((0, 0, 0, 1, 2)))
    )
    closes = False
    if status in BODILESS:
        answer_framing, answer_body = "none", b""
    elif method == "HEAD":
        # What GET would have had: a length, or chunks, of which nothing follows.
        answer += [random.choice((("Content-Length", "12345"), ("Transfer-Encoding", "chunked")))]
        answer_framing, answer_body = "none", b""
    else:
        closes = last and random.random() < 0.5
        answer_framing = "none" if closes else random.choice(("length", "chunked"))
        answer_body = _body(random, largest)
    response = _message(random, f"HTTP/1.1 {status} Said", answer, answer_body, answer_framing)
    return Turn(
        request=request,
        response=informational + response,
        method=method,
        path=path,
        status=status,
        requestid=requestid,
        request_body=body,
        response_body=answer_body,
        request_type=request_type,
        response_type=response_type,
        closes=closes,
    )


def conversation(random: Random, turns: int, largest: int = 400) -> list[Turn]:
    """The exchanges of one connection in order; only the last may end with it."""
    return [turn(random, last=number == turns - 1, largest=largest) for number in range(turns)]


def split(random: Random, data: bytes, pieces: int) -> list[bytes]:
    cuts = sorted(random.randrange(len(data) + 1) for _ in range(pieces - 1))
    parts = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    return [part for part in parts if part]
