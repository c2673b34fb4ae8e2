"""The bridge's HTTP side: CloudEvents and labels in, 202 once they are in the spool, a typed error otherwise.

A bare ASGI application, since a sender that opens a connection for every event, as KServe's agent does, pays for each
layer. Paths: `/` and `/labels`, with `Authorization: Bearer`; `/TENANT/TOKEN` and `/TENANT/TOKEN/labels`, for senders
that can send no header. Called by uvicorn; made by the bridge.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from logger.inbox import Inbox, Item
from logger.tenants import ANYBODY, Tenant, Tenants, admitted
from servelens.contract import labels
from servelens.contract.cloudhttp import Unread, read_each
from servelens.contract.errors import (
    Forbidden,
    NotFound,
    Overloaded,
    PayloadError,
    ServeLensError,
    SpoolFull,
    TooLarge,
    TooSlow,
    Unauthorized,
)
from servelens.contract.events import Exchange
from servelens.contract.metrics import Instruments

log = logging.getLogger(__name__)

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

LABELS: Final = "labels"
ATTRIBUTE_BYTES: Final = 32 << 10  # of one event, all attributes together
_ATTRIBUTES: Final = ("exchangeid", "endpoint", "method", "path", "protocol", "traceparent")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bytes of one body, bytes of all bodies held at once, and seconds a body may take to come."""

    body: int = 4 << 20
    pending: int = 64 << 20
    seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: Mapping[str, Any]
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Gone(Exception):
    """The sender hung up."""


class Reception:
    """`tenants` are those who may send, None: whoever can reach this port. `now_us` is the wall clock."""

    def __init__(
        self,
        inbox: Inbox,
        tenants: Callable[[], Tenants] | None,
        instruments: Instruments,
        bounds: Bounds = Bounds(),
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._inbox, self._tenants, self._bounds, self._now_us = inbox, tenants, bounds, now_us
        self._events = instruments["servelens_bridge_events_total"]
        self._rejected = instruments["servelens_bridge_rejected_total"]
        self._letters = instruments["servelens_bridge_dead_letters_total"]
        self._duration = instruments["servelens_bridge_request_duration_seconds"]
        self._failed = instruments["servelens_task_errors_total"].labels(task="bridge.request")
        self._pending = 0
        # There from the start: else the first of each is no increase.
        for kind in ("event", "label"):
            self._events.labels(type=kind)
        for reason in (*_REASONS.values(), "malformed", "bad_time", "too_large", "too_slow"):
            self._rejected.labels(reason=reason)
        for reason in ("malformed", "no_cloudevent", "unknown_type", "bad_attribute", "bad_time", "too_large"):
            self._letters.labels(reason=reason)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI 3 has it."""
        if scope["type"] != "http":
            return
        began = time.perf_counter()
        try:
            answer = await self._answered(scope, receive)
        except ServeLensError as error:
            answer = _refusal(error)
            self._rejected.labels(reason=_reason(error)).inc()
        except Gone:
            return
        except Exception:
            log.exception("request failed")
            self._failed.inc()
            answer = _Answer(500, {"error": "internal error; the log of the bridge says more"})
        headers = [(b"content-type", b"application/json"), *answer.headers]
        body = orjson.dumps(answer.body)
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self._duration.observe(time.perf_counter() - began)

    async def _answered(self, scope: Scope, receive: Receive) -> _Answer:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        tenant, kind = self._asked(scope["path"], headers)
        if scope["method"] != "POST":
            return _Answer(405, {"error": "method: only POST is served here"}, ((b"allow", b"POST"),))
        size = self._room_for(headers)
        held = [size]
        self._pending += size
        try:
            body = await self._body(receive, held)
            if kind == LABELS:
                return await self._labels(body, tenant)
            return await self._exchanges(headers, body, tenant)
        finally:
            self._pending -= sum(held)

    def _asked(self, path: str, headers: Mapping[str, str]) -> tuple[Tenant, str]:
        """Who asks, and for what; NotFound, Unauthorized."""
        parts = [part for part in path.split("/") if part]
        kind = parts.pop() if parts and parts[-1] == LABELS and len(parts) != 2 else "events"
        if len(parts) not in (0, 2):
            raise NotFound("path: post events to / or /TENANT/TOKEN, labels to either with /labels")
        if self._tenants is None:
            return ANYBODY, kind
        scheme, _, token = headers.get("authorization", "").partition(" ")
        name, shown = parts or ("", token.strip() if scheme.lower() == "bearer" else "")
        return admitted(self._tenants(), name, shown), kind

    # -- bodies

    def _room_for(self, headers: Mapping[str, str]) -> int:
        """Bytes to be held for a body whose length is told."""
        told = headers.get("content-length", "0")
        size = int(told) if told.isdigit() else 0
        self._check(size, size)
        return size

    def _check(self, size: int, more: int) -> None:
        if size > self._bounds.body:
            raise TooLarge("body", f"over {self._bounds.body} bytes; send smaller batches, or raise --max-body")
        if self._pending + more > self._bounds.pending:
            raise Overloaded("body: too many are on their way; send again")

    async def _body(self, receive: Receive, held: list[int]) -> bytes:
        """The whole body; `held` has the bytes counted as pending for it, which grow where its length is not told."""
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._bounds.seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Gone
                    pieces.append(message.get("body", b""))
                    size += len(pieces[-1])
                    if (more := size - sum(held)) > 0:
                        self._check(size, more)
                        held.append(more)
                        self._pending += more
                    if not message.get("more_body"):
                        return b"".join(pieces)
        except TimeoutError:
            raise TooSlow("body", f"did not come within {self._bounds.seconds:g} seconds") from None

    # -- what is posted

    async def _labels(self, body: bytes, tenant: Tenant) -> _Answer:
        found = labels.read_body(body, self._now_us(), self._inbox.known_as)
        for label in found:
            tenant.check(label.namespace)
        await self._kept(found)
        self._events.labels(type="label").inc(len(found))
        return _Answer(202, {"accepted": len(found)})

    async def _exchanges(self, headers: Mapping[str, str], body: bytes, tenant: Tenant) -> _Answer:
        read = [_bounded(one) for one in read_each(headers, body)]
        unread = [(index, one.error) for index, one in enumerate(read) if isinstance(one, Unread)]
        for one in read:
            if isinstance(one, Exchange):
                tenant.check(one.identity.namespace)
        await self._kept(read)
        self._events.labels(type="event").inc(len(read) - len(unread))
        for _, error in unread:
            self._letters.labels(reason=error.reason).inc()
        if unread and len(unread) == len(read):
            return _Answer(400, {"error": str(unread[0][1]), "rejected": _told(unread)})
        answer: dict[str, Any] = {"accepted": len(read) - len(unread)}
        return _Answer(202, answer | ({"rejected": _told(unread)} if unread else {}))

    async def _kept(self, items: Iterable[Item]) -> None:
        if not await self._inbox.post(items):
            raise SpoolFull("spool: full, or not writable; send again")


def _bounded(one: Exchange | Unread) -> Exchange | Unread:
    """An event whose attributes are out of all proportion is none."""
    if isinstance(one, Exchange):
        size = sum(len(getattr(one, name)) for name in _ATTRIBUTES) + len(str(one.identity))
        halves = [half for half in (one.request, one.response) if half]
        size += sum(len(half.content_type) + len(half.encoding) for half in halves) + sum(map(len, one.redacted))
        if size > ATTRIBUTE_BYTES:
            body = b"".join(half.body for half in halves)
            return Unread(TooLarge("attributes", f"over {ATTRIBUTE_BYTES} bytes together; leave some out"), (), body)
    return one


def _told(unread: Sequence[tuple[int, PayloadError]]) -> list[Mapping[str, Any]]:
    return [{"index": index, "error": str(error)} for index, error in unread]


_REASONS: Final[Mapping[type[ServeLensError], str]] = {
    Unauthorized: "unauthorized",
    Forbidden: "forbidden",
    NotFound: "not_found",
    SpoolFull: "spool_full",
    Overloaded: "over_budget",
}


def _reason(error: ServeLensError) -> str:
    return error.reason if isinstance(error, PayloadError) else _REASONS.get(type(error), "failed")


def _refusal(error: ServeLensError) -> _Answer:
    headers: list[tuple[bytes, bytes]] = []
    if isinstance(error, Overloaded):
        headers.append((b"retry-after", b"%d" % max(1, round(error.retry_after))))
    if isinstance(error, Unauthorized):
        headers.append((b"www-authenticate", b"Bearer"))
    if isinstance(error, TooLarge | TooSlow):
        headers.append((b"connection", b"close"))  # the rest of the body is not wanted
    return _Answer(error.status, {"error": str(error)}, tuple(headers))
