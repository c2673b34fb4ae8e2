"""The observer of one client connection: copies of its two byte directions in, exchanges out. No I/O.

Apart from the tap, which forwards bytes whether or not anything here understands them. httptools (llhttp) parses both
directions in its strict mode; what that cannot frame without doubt ends the observation, never the connection. What
becomes of an exchange is the business of the `Watch`.
"""

from collections import deque
from typing import Any, Final, Protocol

import httptools

from logger.budget import Budget
from logger.seen import REQUEST_HEADERS, RESPONSE_HEADERS, Body, Headers, Seen, ends_by_close, has_body

DEFAULT_CAP: Final = 1 << 20  # bytes kept of each body
QUIET_LIMIT: Final = 64 << 10  # bytes of a head, trailer or chunk extension: more is not read to its end
PENDING_LIMIT: Final = 1024  # requests pipelined and not yet answered
_HEAD_END: Final = b"\r\n\r\n"  # the only end of a head that llhttp accepts in strict mode
_SWITCHING: Final = 101


class Watch(Protocol):
    """Who is told. Every exchange begun ends in exactly one `finished` or `dropped`."""

    def begun(self, seen: Seen, headers: Headers) -> None:
        """A request head is complete; sets `seen.keep` if its bodies are wanted."""

    def answered(self, seen: Seen) -> None:
        """The last response byte has passed, or never will; comes at most once, before `finished` or `dropped`."""

    def finished(self, seen: Seen) -> None:
        """Both halves have ended, or the connection has: what was seen is all there is."""

    def dropped(self, seen: Seen, reason: str) -> None:
        """The exchange cannot be kept: `over_budget` (it goes on, unkept), `unparsable` or `upgraded`."""

    def unseen(self, reason: str) -> None:
        """An exchange was begun whose head could not be read."""


class _StopParsing(Exception):
    """Raised in a callback to end the parse at once: the connection has gone blind."""


class _Requests:
    """The request direction: httptools calls the `on_` methods."""

    def __init__(self, observer: "Observer") -> None:
        self._observer = observer
        self.parser = httptools.HttpRequestParser(self)
        self.current: Seen | None = None
        self.progress = False
        self._target, self._headers = b"", dict[bytes, bytes]()
        self._in_head = True
        self._body_follows = self._resuming = False

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in REQUEST_HEADERS and self._in_head:
            self._headers[name] = value

    def on_headers_complete(self) -> None:
        self.progress = True
        if self._resuming:
            return
        self._in_head = False
        headers, method = self._headers, self.parser.get_method().decode()
        if b"upgrade" in headers and self.parser.should_upgrade():
            self._body_follows = has_body(headers)
        self.current = Seen(method, self._target, headers)
        self._target = b""
        self._observer.request_began(self.current, headers)

    def on_body(self, data: bytes) -> None:
        self.progress = True
        if self.current is not None:
            self._observer.keep(self.current, self.current.request, data)

    def on_message_complete(self) -> None:
        self.progress = True
        if self._body_follows:
            return
        self._headers, self._in_head = {}, True
        seen, self.current = self.current, None
        if seen is not None:
            self._observer.request_ended(seen)

    def resume(self) -> None:
        """Go on after a request that asks for an upgrade: until it is granted, what follows is HTTP.

        llhttp skips such a request's body (Java's HttpClient sends one with its first POST, for h2c): a new parser
        gets a head that says no more than how the body is framed.
        """
        self.parser = httptools.HttpRequestParser(self)
        if not self._body_follows:
            return
        framing = b"".join(b"%s: %s\r\n" % item for item in self._headers.items() if has_body(dict((item,))))
        self._body_follows, self._resuming = False, True
        self.parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n")
        self._resuming = False


class _Responses:
    """The response direction: httptools calls the `on_` methods."""

    def __init__(self, observer: "Observer") -> None:
        self._observer = observer
        self.parser = httptools.HttpResponseParser(self)
        self.progress = False
        self.begun = False  # bytes of a response have come, its end has not
        self.until_close = False
        self.headless_body = False  # the response to HEAD has ended with its head, which llhttp cannot know
        self._headers = dict[bytes, bytes]()
        self._in_head, self._informational = True, False
        self._current: Seen | None = None

    def on_message_begin(self) -> None:
        self.begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in RESPONSE_HEADERS and self._in_head:
            self._headers[name] = value

    def on_headers_complete(self) -> None:
        self.progress = True
        headers, self._headers = self._headers, {}
        status = self.parser.get_status_code()
        self._informational = status < 200 and status != _SWITCHING
        if self._informational:
            return
        self._in_head = False
        seen = self._current = self._observer.response_began(status)
        seen.response = Body(headers)
        self.headless_body = seen.method == "HEAD"
        self.until_close = ends_by_close(headers)

    def on_body(self, data: bytes) -> None:
        self.progress = True
        if self._current is not None:
            self._observer.keep(self._current, self._current.response, data)

    def on_message_complete(self) -> None:
        self.progress = True
        self.begun = False
        if not self._informational and not self.headless_body:
            self.end()

    def end(self) -> None:
        """The final response is complete."""
        self.begun = self.until_close = self.headless_body = False
        self._current, self._in_head = None, True
        self._observer.response_ended()

    def restart(self) -> None:
        """End the response to HEAD: what follows it is the next head, whatever Content-Length it named."""
        self.parser = httptools.HttpResponseParser(self)
        self.end()


class Observer:
    """Feed it copies of both directions in the order they passed.

    `trouble` is empty, or why not all can be seen any more (`unparsable`, `upgraded`); `blind` is True once nothing
    is. An error of a watch, or of the observer itself, is raised: the caller then stops observing.
    """

    def __init__(self, watch: Watch, budget: Budget, cap: int = DEFAULT_CAP) -> None:
        self._watch, self._budget, self._cap = watch, budget, cap
        self.trouble, self.blind = "", False
        self._pending = deque[Seen]()
        self._heads = 0  # HEAD requests among them
        self._tail = b""
        self._deaf = self._ended = False  # no more requests, no more responses are read
        self._quiet_in = self._quiet_out = 0
        self._requests, self._responses = _Requests(self), _Responses(self)

    @property
    def idle(self) -> bool:
        """No exchange is open, nor a request head half read."""
        return not self._pending and self._requests.current is None and not self._quiet_in

    @property
    def answerable(self) -> Seen | None:
        """The exchange whose response is due, if not a byte of that has passed."""
        if self._ended or self.blind or self._responses.begun or not self._pending:
            return None
        return self._pending[0]

    def request(self, data: bytes) -> None:
        """Bytes from the client."""
        if self._deaf:
            return
        try:
            self._feed_request(data)
        except httptools.HttpParserCallbackError as error:
            _reraise(error)
        except httptools.HttpParserError:
            self._lose_request()
        if self._requests.progress:
            self._requests.progress, self._quiet_in = False, 0
            return
        self._quiet_in += len(data)
        if self._quiet_in > QUIET_LIMIT:
            self._lose_request()

    def response(self, data: bytes) -> None:
        """Bytes to the client."""
        if self.blind or self._ended:
            return
        try:
            if self._heads:
                self._feed_in_pieces(data)
            else:
                self._responses.parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            _reraise(error)
        except httptools.HttpParserError:
            self._go_blind("unparsable")
        if self._responses.progress:
            self._responses.progress, self._quiet_out = False, 0
            return
        self._quiet_out += len(data)
        if self._quiet_out > QUIET_LIMIT:
            self._go_blind("unparsable")

    def request_eof(self) -> None:
        """The client sends no more; it may still be answered."""
        self._deaf = True
        seen, self._requests.current = self._requests.current, None
        if seen is not None:
            seen.request.cut = True
            self.request_ended(seen)

    def response_eof(self) -> None:
        """The predictor sends no more, and said so: the end of a response that has no other."""
        if self.blind or self._ended:
            return
        if self._responses.begun and self._responses.until_close:
            self._responses.end()
        self._cut_all()

    def lost(self) -> None:
        """The connection is gone: whatever is open ends as far as it came."""
        self._deaf = True
        self._cut_all()

    # What the two directions report.

    def request_began(self, seen: Seen, headers: Headers) -> None:
        """A request head is complete."""
        if len(self._pending) >= PENDING_LIMIT:
            self._requests.current = None
            self._watch.unseen("unparsable")
            self._go_blind("unparsable")
            raise _StopParsing
        self._pending.append(seen)
        if seen.method == "HEAD":
            self._heads += 1
            self._tail = b""
        self._watch.begun(seen, headers)

    def request_ended(self, seen: Seen) -> None:
        """A request is complete, or no more of it will come."""
        seen.requested = True
        if seen.answered:
            self._watch.finished(seen)

    def response_began(self, status: int) -> Seen:
        """A final response's head is complete; whose it is."""
        if not self._pending:
            # An answer nobody asked for: somewhere before, two parsers read two different requests.
            self._watch.unseen("unparsable")
            self._go_blind("unparsable")
            raise _StopParsing
        seen = self._pending[0]
        seen.status = status
        if status == _SWITCHING or (seen.method == "CONNECT" and status < 300):
            self._go_blind("upgraded")
            raise _StopParsing
        return seen

    def response_ended(self) -> None:
        """The response due is complete."""
        seen = self._pending.popleft()
        if seen.method == "HEAD":
            self._heads -= 1
        seen.answered = True
        self._watch.answered(seen)
        if seen.requested:
            self._watch.finished(seen)
        if self.trouble and not self._pending:
            self.blind = True

    def keep(self, seen: Seen, half: Body, data: bytes) -> None:
        """Count a piece of a body, and keep it if its exchange is kept and there is room."""
        half.size += len(data)
        if not seen.keep:
            return
        piece = data[: self._cap - len(half.body)]
        if not piece:
            return
        if self._budget.take(len(piece)):
            half.keep(piece)
            seen.held += len(piece)
        else:
            self._watch.dropped(seen, "over_budget")

    # Parsing.

    def _feed_request(self, data: bytes) -> None:
        rest: bytes | memoryview = data
        while True:
            try:
                return self._requests.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                rest = memoryview(rest)[upgrade.args[0] :]
                self._requests.resume()

    def _feed_in_pieces(self, data: bytes) -> None:
        # Cut wherever a head may end: a response to HEAD does so, and only the parse tells which cut that is.
        joined, start = self._tail + data, 0
        at = joined.find(_HEAD_END)
        while at >= 0 and self._heads:
            end = at + len(_HEAD_END) - len(self._tail)
            self._feed_piece(data[start:end])
            start, at = end, joined.find(_HEAD_END, at + 2)
        self._feed_piece(data[start:])
        self._tail = joined[1 - len(_HEAD_END) :]

    def _feed_piece(self, piece: bytes) -> None:
        self._responses.parser.feed_data(piece)
        if self._responses.headless_body:
            self._responses.restart()

    # Ends.

    def _lose_request(self) -> None:
        # Answers still due are well framed: they are read to the last of them.
        self._deaf, self.trouble = True, self.trouble or "unparsable"
        seen, self._requests.current = self._requests.current, None
        if seen is None:
            self._watch.unseen("unparsable")
        else:
            if not seen.answered:
                self._pending.remove(seen)
            self._drop(seen, "unparsable")
        if not self._pending:
            self.blind = True

    def _go_blind(self, reason: str) -> None:
        self.blind = self._deaf = True
        self.trouble = reason
        for seen in self._take_open():
            self._drop(seen, reason)

    def _drop(self, seen: Seen, reason: str) -> None:
        if not seen.answered:
            self._watch.answered(seen)
        self._watch.dropped(seen, reason)

    def _cut_all(self) -> None:
        self._ended = True
        for seen in self._take_open():
            seen.request.cut = not seen.requested
            if not seen.answered:
                seen.response.cut = seen.status is not None
                self._watch.answered(seen)
            self._watch.finished(seen)

    def _take_open(self) -> list[Seen]:
        current, self._requests.current = self._requests.current, None
        seen = list(self._pending)
        if current is not None and current.answered:
            seen.insert(0, current)
        self._pending.clear()
        return seen


def _reraise(error: Any) -> None:
    # llhttp ends a parse when a callback raises; our own stop is no error.
    if not isinstance(error.__context__, _StopParsing):
        raise error
