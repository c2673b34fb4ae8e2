"""An exchange while it is open, and what is read from its heads: the few headers that are kept, and its path.

Apart from `http1`, which frames bytes; a head's values are judged here. A `Seen` is what `capture.encode` reads, so
no second value is made of it on the hot path.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import quote

from servelens.contract import synthetic
from servelens.contract.identity import clean_request_id

Headers = Mapping[bytes, bytes]

FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
_BODY: Final = frozenset({b"content-type", b"content-encoding", b"inference-header-content-length"})
REQUEST_IDS: Final = (b"x-request-id", b"ce-id")
TRACEPARENT: Final = b"traceparent"
_SYNTHETIC: Final = synthetic.HEADER.encode()
_SKIP: Final = b"seldon-skip-logging"
# No other header is ever looked at, let alone kept.
RESPONSE_HEADERS: Final = FRAMING | _BODY
REQUEST_HEADERS: Final = RESPONSE_HEADERS | {
    *REQUEST_IDS, TRACEPARENT, _SYNTHETIC, _SKIP, b"user-agent", b"upgrade"
}  # fmt: skip

_VALUE_LIMIT: Final = 256  # bytes of a content type or encoding
_TRACE_FORM: Final = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")  # W3C Trace Context 3.2.2
_LENGTH_DIGITS: Final = 10
_VISIBLE: Final = "".join(map(chr, range(0x21, 0x7F)))
_PATH_LIMIT: Final = 2048  # bytes before encoding; what is longer is no inference path


class Body:
    """One half while it passes: `size` counts every byte of the decoded body, `body` holds those that were kept.

    What its head says is read when asked for: of an exchange that is not kept, nobody does.
    """

    body: bytes | bytearray = b""
    size = 0
    cut = False  # the connection ended before the body did

    def __init__(self, headers: Headers) -> None:
        self._headers = headers

    @property
    def content_type(self) -> str:
        """The Content-Type as sent, empty if there is none that is printable ASCII."""
        return _text(self._headers.get(b"content-type", b""))

    @property
    def encoding(self) -> str:
        """The Content-Encoding likewise."""
        return _text(self._headers.get(b"content-encoding", b""))

    @property
    def header_length(self) -> int | None:
        """The Inference-Header-Content-Length, if it is a number."""
        raw = self._headers.get(b"inference-header-content-length", b"")
        return int(raw) if raw and len(raw) <= _LENGTH_DIGITS and raw.isdigit() else None

    def small(self) -> tuple[int, bool, str, str, int | None]:
        """All that is told of it but the body: size, truncated, content type, encoding, header length."""
        get, size = self._headers.get, self.size
        kind, coding = get(b"content-type"), get(b"content-encoding")
        return (
            size,
            self.cut or size > len(self.body),
            _text(kind) if kind else "",
            _text(coding) if coding else "",
            self.header_length if b"inference-header-content-length" in self._headers else None,
        )

    @property
    def truncated(self) -> bool:
        """Whether `body` is less than was, or would have been, sent."""
        return self.cut or self.size > len(self.body)

    def keep(self, data: bytes) -> None:
        """Add to what is kept: one array however small the chunks, so that memory is what was counted."""
        if not self.body:
            self.body = data
            return
        if isinstance(self.body, bytes):
            self.body = bytearray(self.body)
        self.body += data


class Seen:
    """One exchange from its request head on. `keep` is whether its bodies are captured, `held` the bytes taken.

    Defaults stand in the class: to set each of them for each exchange would be a tenth of the observer's work.
    """

    requested = answered = False  # whether that half is complete
    response: Body | None = None
    status: int | None = None
    keep = False
    held = 0
    exchangeid = requestid = traceparent = ""
    protocol = ""  # which inference protocol it is stands in the path, and is the recorder's to read
    claimedsynthetic = False
    arrived_us = started_ns = 0
    duration_us: int | None = None

    def __init__(self, method: str, target: bytes, headers: Headers) -> None:
        self.method, self.target, self.request = method, target, Body(headers)

    @property
    def path(self) -> str:
        """The target without its query, as visible ASCII."""
        return clean_path(self.target.partition(b"?")[0][:_PATH_LIMIT])


NO_HEADERS: Final[Headers] = {}
NO_BODY: Final = Body(NO_HEADERS)


class Measured(Seen):
    """An exchange that is only measured: it has a method, a status and times, and nothing of it is kept."""

    target, request = b"", NO_BODY

    def __init__(self, method: str) -> None:
        self.method = method


@lru_cache(maxsize=1024)
def clean_path(raw: bytes) -> str:
    """A request target without its query, as visible ASCII: every other byte percent-encoded."""
    return quote(raw, safe=_VISIBLE)


def request_id(headers: Headers) -> tuple[str, bool]:
    """The client's own id from X-Request-Id, else Ce-Id, or empty; and whether one was unfit and dropped."""
    dropped = False
    for name in REQUEST_IDS:
        raw = headers.get(name)
        if raw:
            clean = clean_request_id(raw.decode("latin-1"))
            if clean is not None:
                return clean, dropped
            dropped = True
    return "", dropped


def trace_parent(headers: Headers) -> str:
    """The W3C traceparent if it is one, else empty."""
    raw = headers.get(TRACEPARENT, b"")
    return raw.decode("ascii") if raw and _TRACE_FORM.fullmatch(raw) else ""


def claims_synthetic(headers: Headers) -> bool:
    """Whether the client says, in our header or Seldon's, that this is no real traffic."""
    return _SYNTHETIC in headers or _SKIP in headers


def synthetic_token(headers: Headers) -> str:
    """The value of our header, empty where it is missing."""
    return headers.get(_SYNTHETIC, b"").decode("latin-1")


def is_probe(method: str, headers: Headers) -> bool:
    """Whether this is kubelet's own probe: a GET without a body, so that no inference can pass for one."""
    return method == "GET" and headers.get(b"user-agent", b"").startswith(b"kube-probe/") and not has_body(headers)


def has_body(headers: Headers) -> bool:
    """Whether the head announces a body (RFC 9112 section 6.3)."""
    return not FRAMING.isdisjoint(headers)


def ends_by_close(headers: Headers) -> bool:
    """Whether a response with this head has no end but the connection's (RFC 9112 section 6.3, items 4 and 8)."""
    coding = headers.get(b"transfer-encoding")
    if coding is not None:
        return not coding.lower().endswith(b"chunked")
    return b"content-length" not in headers


def _text(raw: bytes) -> str:
    return _short_text(raw) if len(raw) <= _VALUE_LIMIT else ""


@lru_cache(maxsize=256)
def _short_text(raw: bytes) -> str:
    text = raw.decode("latin-1")
    return text if text.isascii() and text.isprintable() else ""
