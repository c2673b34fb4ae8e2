"""Frames from the taps to a batch of rows: skip what is committed, select, name, encode, keep under the record limit.

Apart from the recorder's sockets: bytes in, a `Batch` out, no I/O. A frame's row numbers are given here, so a batch is
good for one commit on the state it was begun from.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from logger import capture
from logger.rules import NO_RULES, Rules
from logger.segment import Row, pack_headers
from logger.select import model_of, reason_against
from logger.spool import Batch
from logger.state import State
from servelens.contract.errors import StateError
from servelens.contract.events import Exchange, Half, LogMode, Record
from servelens.contract.identity import ModelIdentity
from servelens.contract.records import encode, exchange_record

# What Kafka takes by default (message.max.bytes, 1 MiB and a little) less the framing of a record and its batch.
RECORD_LIMIT: Final = (1 << 20) - 4096
MAX_FRAMES: Final = 512  # a commit's cost is spread over as many


def row_of(record: Record, seq: int, exchanges: int, topic: str = "") -> Row:
    """A record as a row of the spool; `topic` as rows call it."""
    return Row(seq, exchanges, record.key, pack_headers(record.headers), record.value, record.timestamp_ms, topic)


class Intake:
    """Builds one batch after another. `identity` is the service's; model names come from the paths."""

    def __init__(
        self,
        identity: ModelIdentity,
        mode: LogMode = "exchange",
        record_limit: int = RECORD_LIMIT,
        batch_bytes: int = 4 << 20,
        rules: Callable[[], Rules] = lambda: NO_RULES,
        on_withheld: Callable[[str], None] = lambda _: None,
        endpoint: str = "",
        trace: Callable[[Exchange], Exchange] | None = None,
    ) -> None:
        self._identity, self._mode, self._endpoint = identity, mode, endpoint
        self._rules, self._on_withheld, self._trace = rules, on_withheld, trace
        self._record_limit, self._batch_bytes = record_limit, batch_bytes
        self._identities: dict[str, ModelIdentity] = {}
        self.batch, self._received, self._tapid, self._seq = Batch(), dict[str, int](), "", 0

    def begin(self, state: State) -> None:
        """A new batch on this state; what was not committed of the last one is forgotten."""
        self.batch, self._received = Batch(), dict(state.streams)
        self._tapid, self._seq = state.tapid, state.seq

    @property
    def full(self) -> bool:
        """Whether it is time to commit."""
        return self.batch.taken >= MAX_FRAMES or self.batch.size >= self._batch_bytes

    def take(self, stream: str, number: int, payload: bytes) -> None:
        """One frame of a stream. One already taken is skipped; a hole before it can only be a repaired spool's."""
        last = self._received.get(stream, 0)
        if number <= last:
            return
        batch = self.batch
        batch.missing += number - last - 1
        batch.taken += 1
        batch.frames[stream] = self._received[stream] = number
        try:
            # Numbered here as well: for one record an exchange that saves a copy, a tenth of the recorder's time.
            exchange = capture.decode(
                payload, self._whose, endpoint=self._endpoint, tapid=self._tapid, seq=self._seq + 1
            )
        except (StateError, TypeError, ValueError):
            batch.reasons["unparsable"] += 1
            return
        if reason := reason_against(self._mode, exchange.method, exchange.path):
            batch.reasons[reason] += 1
            return
        treated = self._rules().treat(exchange, self._on_withheld)
        if isinstance(treated, str):
            batch.reasons[treated] += 1
            return
        if self._trace is not None:
            treated = self._trace(treated)
        for row in self._rows(treated):
            batch.add(row)
            self._seq = row.seq

    def append(self, record: Record) -> None:
        """A record that is no exchange: an accounting event numbered `next_seq`."""
        self._seq += 1
        self.batch.add(row_of(record, self._seq, 0))

    @property
    def next_seq(self) -> int:
        """The next row's number."""
        return self._seq + 1

    def _whose(self, path: str) -> ModelIdentity:
        name = model_of(path)
        found = self._identities.get(name)
        if found is None:
            if len(self._identities) >= 1024:  # names come from clients
                self._identities.clear()
            found = self._identities[name] = replace(self._identity, modelname=name)
        return found

    def _rows(self, exchange: Exchange) -> list[Row]:
        rows = self._encoded(exchange)
        for smaller in (without_larger_body, without_bodies):
            if max(row.size for row in rows) <= self._record_limit:
                break
            rows = self._encoded(smaller(exchange))
        return rows

    def _encoded(self, exchange: Exchange) -> list[Row]:
        seq = exchange.seq
        if self._mode == "exchange":
            return [row_of(exchange_record(exchange), seq, 1)]
        records = encode(exchange, self._mode, seq)
        return [row_of(record, seq + i, int(record is records[-1])) for i, record in enumerate(records)]


def _emptied(half: Half | None) -> Half | None:
    return replace(half, body=b"", truncated=True) if half and half.body else half


def without_larger_body(exchange: Exchange) -> Exchange:
    """The exchange with the larger of its bodies left out: the other one may still be of use. Sizes are kept."""
    sizes: Mapping[str, int] = {
        "request": len(exchange.request.body) if exchange.request else 0,
        "response": len(exchange.response.body) if exchange.response else 0,
    }
    if sizes["request"] > sizes["response"]:
        return replace(exchange, request=_emptied(exchange.request))
    return replace(exchange, response=_emptied(exchange.response))


def without_bodies(exchange: Exchange) -> Exchange:
    """A marker: everything known of the exchange but its bodies."""
    return replace(exchange, request=_emptied(exchange.request), response=_emptied(exchange.response))
