"""The two directions of an HTTP/1.1 connection, parsed: httptools' callbacks as the few events the observer needs.

Apart from the observer, which matches responses to requests. Here stands what llhttp, in its strict mode, must be told
or have undone: the body it skips after a request for an upgrade, the body it waits for after HEAD.
"""

from typing import Final, Protocol

import httptools

from logger.seen import (
    FRAMING,
    NO_BODY,
    NO_HEADERS,
    REQUEST_HEADERS,
    RESPONSE_HEADERS,
    Body,
    Headers,
    Measured,
    Seen,
    ends_by_close,
)

SWITCHING: Final = 101
_HEAD_END: Final = b"\r\n\r\n"
_FIRST_STATUS: Final = 100
_FIRST_FINAL: Final = 200
_METHODS: Final = {name.encode(): name for name in ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH")}


class Malformed(Exception):
    """Bytes that are no HTTP/1.1, or not without doubt."""


class StopParsing(Exception):
    """Raised by a listener to end the parse at once; no error."""


class Listener(Protocol):
    """The observer, as the directions see it."""

    def request_began(self, seen: Seen, headers: Headers, upgrading: bool) -> None:
        """A request head is complete; `upgrading` if it asks to leave HTTP/1.1."""

    def request_ended(self, seen: Seen) -> None:
        """That request is complete."""

    def response_began(self, status: int, response: Body) -> Seen:
        """A final response's head is complete; the exchange it answers."""
        ...

    def response_ended(self) -> None:
        """That response is complete."""

    def keep(self, seen: Seen, half: Body, data: bytes) -> None:
        """A piece of a decoded body."""


class Requests:
    """The request direction. `current` is the exchange whose request is not complete; `progress` is for the caller.

    What httptools calls for every header and piece of a body is a method of a built-in: half the cost of the observer
    is such calls, and a Python function takes three times as long. With `lean` not even those are called: exchanges
    have a method, and nothing else.
    """

    def __init__(self, listener: Listener, *, lean: bool = False) -> None:
        self._listener, self._lean = listener, lean
        self.current: Seen | None = None
        self.progress = False  # a head, a piece of a body or an end has come since the caller last cleared this
        self._target, self._headers, self._pieces = list[bytes](), dict[bytes, bytes](), list[bytes]()
        self._framing = b""  # of a body that follows a request for an upgrade
        self._upgrading = self._again = False
        if not lean:
            self._attend()
        self._parser = httptools.HttpRequestParser(self)

    def _attend(self) -> None:
        self._lean = False
        self.on_url, self.on_header, self.on_body = self._target.append, self._headers.__setitem__, self._pieces.append

    def feed(self, data: bytes) -> None:
        """Parse a piece; Malformed, or whatever a listener raises."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._lean:
                self._read_again(data, upgrade.args[0])
            else:
                self._resume(memoryview(data)[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            _stop(error)
        if self._pieces:
            self._keep()

    def _read_again(self, data: bytes, end: int) -> None:
        """How the body of a request for an upgrade is framed stands in headers that were not read."""
        if data.find(_HEAD_END) + len(_HEAD_END) != end:
            raise Malformed
        self._attend()
        self._parser, self._again = httptools.HttpRequestParser(self), True
        self.feed(data)

    def _resume(self, rest: memoryview) -> None:
        """Go on after a request for an upgrade: until that is granted, what follows is HTTP.

        llhttp skips such a request's body (Java's HttpClient sends one with its first POST, for h2c): a new parser
        gets a head that says no more than how the body is framed.
        """
        while True:
            self._parser = httptools.HttpRequestParser(self)
            try:
                if self._framing:
                    head, self._framing, self._again = self._framing, b"", True
                    self._parser.feed_data(b"POST / HTTP/1.1\r\n" + head + b"\r\n")
                return self._parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                rest = rest[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                return _stop(error)

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self.progress = True
        parser = self._parser
        method = parser.get_method()
        name = _METHODS.get(method) or method.decode()
        if self._lean:
            self._upgrading = parser.should_upgrade()
            measured = self.current = Measured(name)
            self._listener.request_began(measured, NO_HEADERS, self._upgrading)
            return
        headers, pieces = _kept(self._headers, REQUEST_HEADERS), self._target
        target = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._headers.clear()
        pieces.clear()
        if parser.should_upgrade():
            self._upgrading = True
            self._framing = b"".join(b"%s: %s\r\n" % (name, headers[name]) for name in FRAMING if name in headers)
        if self._again:
            self._again = False
            return
        seen = self.current = Seen(name, target, headers)
        self._listener.request_began(seen, headers, self._upgrading)

    def on_message_complete(self) -> None:
        """The request is complete, or llhttp is about to skip its body."""
        self.progress = True
        if self._upgrading:
            self._upgrading = False
            if self._lean or self._framing:
                return
        if self._pieces:
            self._keep()
        self._headers.clear()  # of trailers, which are nothing to us
        seen, self.current = self.current, None
        if seen is not None:
            self._listener.request_ended(seen)

    def _keep(self) -> None:
        self.progress = True
        if self.current is not None:
            for piece in self._pieces:
                self._listener.keep(self.current, self.current.request, piece)
        self._pieces.clear()


class Responses:
    """The response direction. `begun`: bytes of a response have come, but not its end; the rest as in `Requests`."""

    def __init__(self, listener: Listener, *, lean: bool = False) -> None:
        self._listener, self._lean = listener, lean
        self.progress = self.begun = False
        self._until_close = self._to_head = self._informational = False
        self._headers, self._pieces = dict[bytes, bytes](), list[bytes]()
        if not lean:
            self.on_header, self.on_body = self._headers.__setitem__, self._pieces.append
        self._current: Body | None = None
        self._seen: Seen | None = None
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Parse a piece; Malformed, or whatever a listener raises.

        Where a response to HEAD is due, the piece must end where that response's head does.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # raised at 101 if no listener has stopped the parse
            return
        except httptools.HttpParserError as error:
            _stop(error)
            return
        if self._pieces:
            self._keep()
        if self._to_head:
            # The next byte begins a new head, whatever Content-Length this one named; llhttp would wait for it.
            self._parser = httptools.HttpResponseParser(self)
            self._end()

    def eof(self) -> None:
        """No more will come: the end of a response that has no other."""
        if self._until_close and not self._lean:
            self._end()

    def on_message_begin(self) -> None:
        """The first byte of a response."""
        self.begun = True

    def on_headers_complete(self) -> None:
        """The head is complete: of a final response, or of an informational one before it."""
        self.progress = True
        status = self._parser.get_status_code()
        if self._lean and status >= _FIRST_FINAL:
            self._informational = False
            self._to_head = self._listener.response_began(status, NO_BODY).method == "HEAD"
            return
        headers = _kept(self._headers, RESPONSE_HEADERS)
        self._headers.clear()
        if status < _FIRST_STATUS:
            raise Malformed
        self._informational = status < _FIRST_FINAL and status != SWITCHING
        if self._informational:
            return
        self._current = Body(headers)
        seen = self._seen = self._listener.response_began(status, self._current)
        self._to_head = seen.method == "HEAD"
        self._until_close = ends_by_close(headers)

    def on_message_complete(self) -> None:
        """A response is complete, or llhttp is about to skip what it takes for its body."""
        self.progress = True
        self.begun = False
        if not self._informational and not self._to_head:
            self._end()

    def _end(self) -> None:
        if not self._lean:
            if self._pieces:
                self._keep()
            self._headers.clear()
            self._until_close = False
            self._seen = self._current = None
        self.begun = self._to_head = False
        self._listener.response_ended()

    def _keep(self) -> None:
        self.progress = True
        if self._seen is not None and self._current is not None:
            for piece in self._pieces:
                self._listener.keep(self._seen, self._current, piece)
        self._pieces.clear()


def _kept(headers: Headers, names: frozenset[bytes]) -> Headers:
    # httptools leaves the white space after a value (RFC 9110 section 5.5: no part of it).
    return {lower: value.rstrip() for name, value in headers.items() if (lower := name.lower()) in names}


def _stop(error: httptools.HttpParserError) -> None:
    if not isinstance(error, httptools.HttpParserCallbackError):
        raise Malformed from error
    # llhttp ends a parse when a callback raises, and httptools wraps what was raised.
    if not isinstance(error.__context__, StopParsing):
        raise error.__context__ or error
