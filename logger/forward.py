"""Bytes from a client to the predictor and back: one upstream connection for each client connection.

Apart from the observer: every piece is written on before its copy is looked at, and nothing the observer does, or fails
to do, is ever seen by either end. Back-pressure, half-close and resets pass through as they come. Only where there is
no connection to the predictor to be had does the tap give an answer of its own, one of `answers`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, cast

from logger.answers import CLOSED_EARLY, answer
from logger.budget import Budget
from logger.endings import all_arrived, reset, was_reset
from logger.http1 import DEFAULT_CAP, Observer, Watch
from logger.later import Later
from logger.red import Red
from logger.request_ids import RequestIds
from logger.sight import Sight
from logger.upstream import Upstream

WRITE_LIMIT: Final = 64 << 10  # bytes waiting for one end at which the other is no longer read
# After the last response byte a client may go on sending this long, to nobody; nginx's lingering_time.
LINGER_SECONDS: Final = 30.0
SWEEPS: Final = 2  # an idle connection is closed after one and a half times its limit at the latest
# How long after an end has sent its last, or was written to since, it is asked whether an RST came; how often later.
NOTICE_SECONDS: Final = 0.02
NOTICE_AGAIN: Final = 0.1


@dataclass(slots=True)
class Forwarding:
    """What all connections of a tap share. Times in seconds; `cap` in bytes for each body."""

    upstream: Upstream
    watch: Watch
    budget: Budget
    red: Red
    later: Later
    cap: int = DEFAULT_CAP
    lean: bool = False  # measure only
    connect_timeout: float = 5.0
    close_unparsable: bool = False
    max_connections: int = 4096
    request_ids: Callable[[], RequestIds] | None = None
    draining: bool = False
    clients: set["_Client"] = field(default_factory=set)
    turned_away: int = 0  # of them, those that found it full
    _none_left: asyncio.Event = field(default_factory=asyncio.Event)

    def accept(self) -> asyncio.Protocol:
        """The protocol of a new client connection."""
        return _Client(self)

    @property
    def full(self) -> bool:
        """Whether more connections are open than are allowed."""
        return len(self.clients) - self.turned_away > self.max_connections

    def sweep(self) -> None:
        """Close every connection over which nothing has passed for the last `SWEEPS`, if no answer is owed."""
        for client in list(self.clients):
            client.swept()

    def gone(self, client: "_Client") -> None:
        """A client connection has ended."""
        self.clients.discard(client)
        if self.draining and not self.clients:
            self._none_left.set()

    async def drain(self, seconds: float) -> None:
        """Close what is idle now, the rest as its exchanges end, and all that is left after `seconds`."""
        self.draining = True
        if not self.clients:
            return
        for client in list(self.clients):
            client.close_if_idle()
        try:
            await asyncio.wait_for(self._none_left.wait(), seconds)
        except TimeoutError:
            for client in list(self.clients):
                client.transport.abort()
            await self._none_left.wait()


class _Client(asyncio.Protocol):
    """The client's end, and the owner of the pair."""

    def __init__(self, shared: Forwarding) -> None:
        self._shared = shared
        self._sight = Sight(
            Observer(shared.watch, shared.budget, shared.cap, lean=shared.lean),
            shared.red.task_error,
            (lambda: self.transport.abort()) if shared.close_unparsable else None,
        )
        self._look = self._sight.response
        self._forward: Callable[[bytes], object] = self._first
        self._upstream: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._ids = shared.request_ids() if shared.request_ids is not None else None
        self.quiet = 0  # sweeps since the last byte
        self._owed = ""  # the reason of a failure the client is still to be told of
        self._turned_away = False
        self._asked = self._answered = False  # no more will come from the client; no more will go to it
        self._timer: asyncio.TimerHandle | None = None
        self._notice: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(WRITE_LIMIT)
        self._shared.clients.add(self)

    def data_received(self, data: bytes) -> None:
        self.quiet = 0
        if self._ids is not None:
            data = self._ids.feed(data)
        self._forward(data)
        self._sight.request(data)
        if self._answered:
            self.notice_reset()
        if self._owed:
            self._answer(self._owed)

    def eof_received(self) -> bool:
        if self._ids is not None and (held := self._ids.flush()):
            self._forward(held)
            self._sight.request(held)
        self._asked = True
        self._sight.request_eof()
        if self._upstream is None or self._answered:
            return False
        self._upstream.write_eof()
        return True

    def pause_writing(self) -> None:
        if self._upstream is not None:
            self._upstream.pause_reading()

    def resume_writing(self) -> None:
        if self._upstream is not None and not self._answered:
            self._upstream.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._shared.later.flush()
        self._shared.gone(self)
        self._shared.turned_away -= self._turned_away
        self._forward = _discard
        _cancel(self._timer, self._notice)
        if self._connecting is not None:
            self._connecting.cancel()
        self._sight.lost()
        if self._upstream is not None:
            reset(self._upstream) if exc is not None else self._upstream.abort()

    # The way up.

    def _first(self, data: bytes) -> None:
        # Not at accept: a TCP readiness probe of the tap opens nothing in the predictor.
        if self._shared.full:
            self._turned_away = True
            self._shared.turned_away += 1
            self._fail("too_many_connections")
            return
        held = [data]
        self._forward = held.append
        self.transport.pause_reading()
        self._connecting = asyncio.get_running_loop().create_task(self._connect(held))

    async def _connect(self, held: list[bytes]) -> None:
        shared = self._shared
        try:
            async with asyncio.timeout(shared.connect_timeout):
                await shared.upstream.connect(lambda: _Upstream(self, held))
        except TimeoutError:
            self._fail("connect_timeout")
        except OSError:
            self._fail("refused")
        self._connecting = None

    def upstream_made(self, transport: asyncio.Transport, held: list[bytes]) -> None:
        """The predictor has accepted: it gets what waited, then the rest as it comes."""
        self._upstream, self._forward = transport, transport.write
        self.transport.resume_reading()
        transport.writelines(held)

    def _fail(self, reason: str) -> None:
        self._owed, self._upstream, self._forward = reason, None, _discard
        self._close_after(self._shared.connect_timeout)
        self.resume_reading()
        self._answer(reason)

    def _answer(self, reason: str) -> None:
        """Answer the exchange whose response is due; where nothing is seen, nobody knows which that is."""
        if self._sight.blind:
            self.transport.close()
            return
        seen = self._sight.due
        if seen is None:
            return
        data = answer(reason, seen.method)
        self._owed, self._forward = "", _discard
        self._shared.red.upstream_error(reason)
        self.transport.write(data)
        self._sight.response(data)
        self._sight.response_eof()
        self._end_answers()

    # The way down, as the upstream's end reports it.

    def upstream_ended(self) -> bool:
        """The predictor sends no more; whether its end stays open for the rest of the request."""
        self._shared.later.flush()
        self._note_no_answer()
        self._sight.response_eof()
        self._end_answers()
        return not self._asked

    def upstream_lost(self, by_reset: bool) -> None:
        """The connection to the predictor is gone, by an RST or not."""
        self._shared.later.flush()
        self._upstream, self._forward = None, _discard
        if self.transport.is_closing():
            return
        if not self._answered:
            self._note_no_answer()
            reset(self.transport)
        elif self._asked:
            self.transport.close()
        elif by_reset:
            self._reset_once_arrived()
        self.resume_reading()

    def notice_reset(self, seconds: float = NOTICE_SECONDS) -> None:
        """An end sends no more, or was written to since: see to it that an RST that follows is passed on."""
        if self._notice is None:
            self._notice = asyncio.get_running_loop().call_later(seconds, self._pass_reset_on)

    def _pass_reset_on(self) -> None:
        self._notice = None
        upstream = self._upstream
        if upstream is not None and was_reset(upstream):
            self.upstream_lost(by_reset=True)
            upstream.abort()
        elif was_reset(self.transport):
            if upstream is not None:
                reset(upstream)
            self.transport.abort()
        elif upstream is not None and self._answered:
            self.notice_reset(NOTICE_AGAIN)

    def _reset_once_arrived(self) -> None:
        _cancel(self._notice)
        if all_arrived(self.transport):
            reset(self.transport)
        else:
            self._notice = asyncio.get_running_loop().call_later(NOTICE_AGAIN, self._reset_once_arrived)

    def _note_no_answer(self) -> None:
        # Passed on as it came: a client whose kept connection the predictor has just closed asks again by itself, if
        # it sees that close and not an answer of ours (RFC 9110 section 9.2.2).
        if self._sight.due is not None:
            self._shared.red.upstream_error(CLOSED_EARLY)

    def observe_response(self, data: bytes) -> None:
        """Have a copy of what went to the client looked at."""
        if self._asked:
            self.notice_reset()
        if self._sight.blind:
            return
        self._shared.later.add(self._look, data)
        if self._shared.draining:
            self.close_if_idle()
        elif self._sight.upgrading:
            self._shared.later.flush()  # before the client's next bytes, which may be no HTTP

    def resume_reading(self) -> None:
        """Read on, if there is anything to come."""
        if not self._asked:
            self.transport.resume_reading()

    # Ends of the connection.

    def close_if_idle(self) -> None:
        """Close, what is written being sent first, unless an exchange is open or nobody can tell."""
        self._shared.later.flush()
        if self._answered or self._sight.idle:
            self.transport.close()

    def swept(self) -> None:
        """A sweep: a silent client is let go of, a predictor that thinks is not."""
        self.quiet += 1
        if self.quiet > SWEEPS:
            self._shared.later.flush()
            if not self._sight.owed:
                self.transport.close()

    def _end_answers(self) -> None:
        if self._answered or self.transport.is_closing():
            return
        self._answered = True
        if self._shared.draining:
            self.transport.close()
        else:
            self.transport.write_eof()
            self._close_after(LINGER_SECONDS)
            self.notice_reset()

    def _close_after(self, seconds: float) -> None:
        _cancel(self._timer)
        self._timer = asyncio.get_running_loop().call_later(seconds, self.transport.abort)


class _Upstream(asyncio.Protocol):
    """The predictor's end of a pair."""

    def __init__(self, client: _Client, held: list[bytes]) -> None:
        self._client, self._held = client, held

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        upstream = cast("asyncio.Transport", transport)
        upstream.set_write_buffer_limits(WRITE_LIMIT)
        self._client.upstream_made(upstream, self._held)

    def data_received(self, data: bytes) -> None:
        self._client.quiet = 0
        self._client.transport.write(data)
        self._client.observe_response(data)

    def eof_received(self) -> bool:
        return self._client.upstream_ended()

    def pause_writing(self) -> None:
        self._client.transport.pause_reading()

    def resume_writing(self) -> None:
        self._client.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.upstream_lost(exc is not None)


def _cancel(*timers: asyncio.TimerHandle | None) -> None:
    for timer in timers:
        if timer is not None:
            timer.cancel()


def _discard(_: bytes) -> None:
    """Where bytes go that nobody will read."""
