"""The observer of one client connection: copies of its two byte directions in, exchanges out. No I/O.

Apart from the tap, which forwards bytes whether or not anything here understands them, and from `directions`, which
parse. Here responses are matched to their requests. What cannot be framed without doubt ends the observation, never
the connection; what becomes of an exchange is the business of the `Watch`.
"""

from collections import deque
from typing import Final, Protocol

from logger.budget import Budget
from logger.directions import SWITCHING, Malformed, Requests, Responses, StopParsing
from logger.seen import Body, Headers, Seen

DEFAULT_CAP: Final = 1 << 20  # bytes kept of each body
QUIET_LIMIT: Final = 64 << 10  # bytes of a head, trailer or chunk extension: more is not read to its end
PENDING_LIMIT: Final = 1024  # requests pipelined and not yet answered
_HEAD_END: Final = b"\r\n\r\n"  # the only end of a head that llhttp accepts in strict mode


class Watch(Protocol):
    """Who is told. Every exchange begun ends in one `finished`, or in `dropped` for good."""

    def begun(self, seen: Seen, headers: Headers) -> None:
        """A request head is complete; sets `seen.keep` if its bodies are wanted."""

    def answered(self, seen: Seen) -> None:
        """The last response byte has passed, or never will; comes at most once, before `finished` or `dropped`."""

    def finished(self, seen: Seen) -> None:
        """Both halves have ended, or the connection has: what was seen is all there is."""

    def dropped(self, seen: Seen, reason: str) -> None:
        """The exchange is not to be had: `unparsable`, `upgraded`, or `over_budget`; the last goes on to `finished`."""

    def unseen(self, reason: str) -> None:
        """An exchange was begun whose head could not be read."""


class Observer:
    """Feed it copies of both directions in the order they passed.

    `trouble` is empty, or why not all can be seen any more (`unparsable`, `upgraded`); `blind` is True once nothing
    is. With `lean` nothing is captured and no header is read. An error of a watch, or of the observer itself, is
    raised: the caller then stops observing.
    """

    def __init__(self, watch: Watch, budget: Budget, cap: int = DEFAULT_CAP, *, lean: bool = False) -> None:
        self._watch, self._budget, self._cap = watch, budget, cap
        self.trouble, self.blind = "", False
        self.upgrading = False  # a request has asked to leave HTTP/1.1
        self._pending = deque[Seen]()
        self._heads = 0  # HEAD requests among them
        self._tail = b""
        self._deaf = self._ended = False  # no more requests, no more responses are read
        self._quiet_in = self._quiet_out = 0
        self._requests, self._responses = Requests(self, lean=lean), Responses(self, lean=lean)

    @property
    def idle(self) -> bool:
        """No exchange is open, nor a request head half read."""
        return not self._pending and self._requests.current is None and not self._quiet_in

    @property
    def owed(self) -> bool:
        """A request is complete, and its answer is not."""
        return any(seen.requested for seen in self._pending)

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
            self._requests.feed(data)
        except Malformed:
            self._lose_request()
        if self._requests.progress:
            self._requests.progress, self._quiet_in = False, 0
        else:
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
                self._responses.feed(data)
        except Malformed:
            self._lose_response()
        if self._responses.progress:
            self._responses.progress, self._quiet_out = False, 0
        else:
            self._quiet_out += len(data)
            if self._quiet_out > QUIET_LIMIT:
                self._lose_response()

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
        self._responses.eof()
        self._cut_all()

    def lost(self) -> None:
        """The connection is gone: whatever is open ends as far as it came."""
        self._deaf = True
        self._cut_all()

    def abandon(self) -> None:
        """Give up after an error: nothing that is open can be trusted."""
        self._go_blind("unparsable")

    # What the two directions report.

    def request_began(self, seen: Seen, headers: Headers, upgrading: bool) -> None:
        """A request head is complete."""
        if len(self._pending) >= PENDING_LIMIT:
            self._requests.current = None
            self._watch.unseen("unparsable")
            self._go_blind("unparsable")
            raise StopParsing
        self._pending.append(seen)
        if upgrading:
            self.upgrading = True
        if seen.method == "HEAD":
            if not self._heads:
                self._tail = b""  # nobody has kept it up to now
            self._heads += 1
        self._watch.begun(seen, headers)

    def request_ended(self, seen: Seen) -> None:
        """A request is complete, or no more of it will come."""
        seen.requested = True
        if seen.answered:
            self._watch.finished(seen)

    def response_began(self, status: int, response: Body) -> Seen:
        """A final response's head is complete; the exchange it answers."""
        if not self._pending:
            # An answer nobody asked for: somewhere before, two parsers read two different requests.
            self._lose_response()
            raise StopParsing
        seen = self._pending[0]
        seen.status, seen.response = status, response
        if status == SWITCHING or (seen.method == "CONNECT" and status < 300):
            self._go_blind("upgraded")
            raise StopParsing
        return seen

    def response_ended(self) -> None:
        """The response due is complete."""
        seen = self._pending.popleft()
        if seen.method == "HEAD":
            self._heads -= 1
        seen.answered = True
        if self.upgrading:
            self.upgrading = bool(self._pending)
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

    def _feed_in_pieces(self, data: bytes) -> None:
        # Cut wherever a head may end: a response to HEAD does so, and only the parse tells which cut that is.
        joined, start = self._tail + data, 0
        at = joined.find(_HEAD_END)
        while at >= 0 and self._heads and not self.blind:
            end = at + len(_HEAD_END) - len(self._tail)
            self._responses.feed(data[start:end])
            start, at = end, joined.find(_HEAD_END, at + 2)
        if not self.blind:
            self._responses.feed(data[start:])
        self._tail = joined[1 - len(_HEAD_END) :]

    # Ends.

    def _lose_request(self) -> None:
        # Answers still due are well framed: they are read to the last of them.
        if self._deaf:
            return
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

    def _lose_response(self) -> None:
        if self.blind:
            return
        if not self._pending:
            self._watch.unseen("unparsable")  # so that a connection never goes blind uncounted
        self._go_blind("unparsable")

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
                if seen.response is not None:
                    seen.response.cut = True
                self._watch.answered(seen)
            self._watch.finished(seen)

    def _take_open(self) -> list[Seen]:
        current, self._requests.current = self._requests.current, None
        seen = list(self._pending)
        if current is not None and current.answered:
            seen.insert(0, current)
        self._pending.clear()
        return seen
