"""What the bridge has been sent, on its way into the spool: rows made, many posts to a commit, each told at its end.

Apart from HTTP: items in, a future out that is true once they are in the spool. On one event loop; a commit blocks it
for a millisecond or two, and is shared by all who have come meanwhile. Called by the reception.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from logger.intake import RECORD_LIMIT, row_of, without_bodies, without_larger_body
from logger.rules import Rules
from logger.segment import Row
from logger.spool import Batch, Spool
from servelens.contract.cloudhttp import Unread
from servelens.contract.errors import StateError
from servelens.contract.events import Exchange, Record
from servelens.contract.identity import clean_request_id
from servelens.contract.labels import Label, label_record
from servelens.contract.records import exchange_record, half_record

log = logging.getLogger(__name__)

COMMIT_AFTER: Final = 0.002  # seconds in which posts gather for one commit
BATCH_BYTES: Final = 4 << 20
TIDY_EVERY: Final = 1.0  # seconds
_REASON_LIMIT: Final = 500  # characters
_LETTER_LIMIT: Final = RECORD_LIMIT - (128 << 10)  # bytes of a body; the server lets fewer through as headers

Item = Exchange | Label | Unread


class Inbox:
    """One spool's way in. `rules` are those in force now; `on_withheld` is told why a body was left out."""

    def __init__(
        self,
        spool: Spool,
        rules: Callable[[], Rules],
        on_withheld: Callable[[str], None],
        on_error: Callable[[str], None],
    ) -> None:
        self._spool, self._rules, self._on_withheld, self._on_error = spool, rules, on_withheld, on_error
        self._timer: asyncio.TimerHandle | None = None
        self._damaged = False
        self.trouble: str | None = None  # why it cannot be written; that it is full is no such thing
        self._begin()

    def _begin(self) -> None:
        self._batch, self._posts = Batch(), list[asyncio.Future[bool]]()
        self._tapid, self._seq = self._spool.state.tapid, self._spool.state.seq

    def post(self, items: Iterable[Item]) -> "asyncio.Future[bool]":
        """Take the items of one post: true once they are in the spool, false if it is full or cannot be written."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        for item in items:
            self._batch.offered += 1
            if (reason := self._add(item)) is not None:
                self._batch.reasons[reason] += 1
        self._posts.append(future)
        if self._batch.size >= min(BATCH_BYTES, self._spool.segment_bytes // 4):
            self.commit()
        elif self._timer is None:
            self._timer = loop.call_later(COMMIT_AFTER, self.commit)
        return future

    def known_as(self, requestid: str) -> str | None:
        """A client's id as the rules leave it in events; None if they take it out."""
        return self._rules().known_as(requestid)

    def _add(self, item: Item) -> str | None:
        rules = self._rules()
        if isinstance(item, Exchange):
            ours = replace(item, requestid=_known_by(item), tapid=self._tapid, seq=self._seq + 1)
            treated = rules.treat(ours, self._on_withheld)
            if isinstance(treated, str):
                return treated
            row = _exchange_row(treated)
        elif isinstance(item, Label):
            row = row_of(label_record(item), self._seq + 1, 1, "labels")
        elif not rules.logs:
            return "not_logged"
        else:
            row = _letter_row(item, f"{self._tapid}/{self._seq + 1}", self._seq + 1, withheld=rules.redacts)
        self._batch.add(row)
        self._seq = row.seq
        return None

    def commit(self) -> None:
        """Commit what has come, and tell those who wait."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, posts = self._batch, self._posts
        if not posts:
            return
        done = False
        try:
            done = self._spool.commit(batch)
            self.trouble = None
        except (StateError, sqlite3.Error, OSError) as error:
            self._failed(error)
        self._begin()
        for future in posts:
            if not future.done():  # its sender may be gone
                future.set_result(done)

    def _failed(self, error: Exception) -> None:
        if self.trouble is None:
            log.error("spool cannot be written", extra={"problem": str(error)})
        self.trouble = str(error)
        self._on_error("bridge.spool")
        self._damaged = self._damaged or isinstance(error, StateError)
        self._mend()

    def _mend(self) -> None:
        if self._damaged:
            with contextlib.suppress(StateError, sqlite3.Error, OSError):
                self._spool.repair({})
                self._damaged = False

    async def tidy(self) -> None:
        """Delete what has been shipped, and see whether what could not be written can be again; for ever."""
        while True:
            await asyncio.sleep(TIDY_EVERY)
            try:
                self._mend()
                self._spool.tidy()
                if self.trouble is not None:  # while this is not ready, nobody posts
                    self._spool.update(lambda state: state)
                    self.trouble = None
            except (StateError, sqlite3.Error, OSError) as error:
                self._failed(error)

    def close(self) -> None:
        """Commit what is left, and let go of the spool."""
        self.commit()
        self._spool.close()


def _known_by(exchange: Exchange) -> str:
    """The client's own id: KServe's agent takes the event's id from the client's `Ce-Id`, where it sent one."""
    return exchange.requestid or clean_request_id(next(iter(exchange.sources), "")) or ""


def _exchange_row(exchange: Exchange) -> Row:
    row = row_of(_record(exchange), exchange.seq, 1)
    for smaller in (without_larger_body, without_bodies):
        if row.size <= RECORD_LIMIT:
            break
        row = row_of(_record(smaller(exchange)), exchange.seq, 1)
    return row


def _record(exchange: Exchange) -> Record:
    if exchange.request is not None and exchange.response is not None:
        return exchange_record(exchange)
    return half_record(exchange, "response" if exchange.request is None else "request")


def _letter_row(unread: Unread, key: str, seq: int, *, withheld: bool) -> Row:
    """A dead letter: the event as it came, and why; only why, where there are rules that would hide some of it."""
    told: Mapping[str, Any] = {
        "servelens_reason": unread.error.reason,
        "servelens_problem": "" if withheld else str(unread.error)[:_REASON_LIMIT],
        "servelens_withheld": "true" if withheld else "",
        "servelens_truncated": "true" if len(unread.body) > _LETTER_LIMIT and not withheld else "",
    }
    came: Sequence[tuple[str, str]] = () if withheld else unread.headers
    headers = [(name.replace("ce-", "ce_", 1), value) for name, value in came]
    headers += [(name, value) for name, value in told.items() if value]
    body = b"" if withheld else unread.body[:_LETTER_LIMIT]
    record = Record(key.encode(), tuple((name, value.encode()) for name, value in headers), body, 0)
    return row_of(record, seq, 1, "dead-letters")
