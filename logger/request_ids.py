"""The one change the tap can make to a request: ids inserted at the end of a head that has none (`--add-request-id`).

Apart from the observer, which only looks, and not used at all without the flag: here bytes are looked at before they
are forwarded. What is not understood without doubt passes as it came, and so does the rest of its connection.
"""

from collections.abc import Callable
from typing import Final

import httptools

from logger.seen import REQUEST_IDS, TRACEPARENT

_HEAD_END: Final = b"\r\n\r\n"  # the only end of a head that llhttp accepts in strict mode
_LENGTH_DIGITS: Final = 18


class RequestIds:
    """The client's bytes of one connection in, the predictor's out. `make` gives the value of a missing header."""

    def __init__(self, make_request_id: Callable[[], str], make_traceparent: Callable[[], str]) -> None:
        self._make_request_id, self._make_traceparent = make_request_id, make_traceparent
        self._off = self._in_body = self._headed = False
        self._held = b""  # the beginning of what may be the end of a head
        self._rest = 0  # bytes still to come of a body whose length is known
        self._headers = dict[bytes, bytes]()
        self.on_header = self._headers.__setitem__
        self._parser = httptools.HttpRequestParser(self)

    def feed(self, data: bytes) -> bytes:
        """The bytes to forward now; at most three are held back until more come."""
        if self._off:
            return data
        data, self._held = self._held + data, b""
        out, start = list[bytes](), 0
        while start < len(data) and not self._off:
            end = self._cut(data, start)
            if end < 0:
                break
            out.append(self._piece(data[start:end]))
            start = end
        rest = data[start:]
        if rest and not self._off:
            rest = self._unfinished(rest)
        return b"".join((*out, rest))

    def flush(self) -> bytes:
        """What was held back, once no more will come."""
        held, self._held, self._off = self._held, b"", True
        return held

    def on_headers_complete(self) -> None:
        """A request head is complete."""
        self._headed = self._in_body = True

    def on_message_complete(self) -> None:
        """A request is complete."""
        self._in_body = False
        self._rest = 0

    def _cut(self, data: bytes, start: int) -> int:
        """The next place where a head, or a body, may end; -1 if it is not in `data`."""
        if self._rest:
            return min(start + self._rest, len(data))
        at = data.find(_HEAD_END, start)
        return at + len(_HEAD_END) if at >= 0 else -1

    def _piece(self, piece: bytes) -> bytes:
        self._rest = max(0, self._rest - len(piece))
        self._parse(piece)
        if not self._headed:
            return piece
        # It has just ended, with this piece: whatever is in the body comes after.
        missing = self._missing({name.lower(): value for name, value in self._headers.items()})
        self._headed = False
        self._headers.clear()
        return piece[:-2] + missing + piece[-2:]

    def _unfinished(self, rest: bytes) -> bytes:
        held = 0
        if not self._in_body:
            held = next((n for n in (3, 2, 1) if rest.endswith(_HEAD_END[:n])), 0)
        whole = rest[: len(rest) - held]
        self._held = rest[len(rest) - held :]
        if whole:
            self._parse(whole)
        return whole + self.flush() if self._off else whole

    def _parse(self, piece: bytes) -> None:
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            self._off = True
        except httptools.HttpParserError:
            self._off, self._headed = True, False

    def _missing(self, headers: dict[bytes, bytes]) -> bytes:
        length = headers.get(b"content-length", b"")
        if b"transfer-encoding" not in headers and length.isdigit() and len(length) <= _LENGTH_DIGITS:
            self._rest = int(length)
        lines = b""
        if not any(name in headers for name in REQUEST_IDS):
            lines += b"x-request-id: %b\r\n" % self._make_request_id().encode()
        if TRACEPARENT not in headers:
            lines += b"traceparent: %b\r\n" % self._make_traceparent().encode()
        return lines
