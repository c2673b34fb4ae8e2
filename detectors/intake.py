"""Payload records in, a batch of panes out: decode, pair, de-duplicate, find the profile, count by slot. No I/O.

One `Intake` per partition and ownership; the worker feeds it records in offset order and takes the batch when it is
full or old enough. What cannot be read becomes a letter for the dead-letter topic, with its reason.
"""

import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from detectors.book import Book
from detectors.ownership import Batch
from detectors.pairing import Pairing
from detectors.pane import SEASON, Pane, total
from detectors.profile import Profile
from detectors.requests import counter_of
from detectors.seasons import season_of
from servelens.contract import paths, records, rows
from servelens.contract.errors import PayloadError, TooLarge
from servelens.contract.events import Accounting, Exchange, Half
from servelens.contract.identity import ModelIdentity
from servelens.contract.schema import ModelSchema
from servelens.contract.table import Table, concat
from servelens.contract.times import US, clamp_event_time, slot_of

LOG_APPEND_TIME: Final = 1  # ConsumerRecord.timestamp_type
MAX_INFLATED: Final = 64 << 20  # bytes of a body once decompressed
# Results that are no fault of the sender's bytes: counted, not written to the dead-letter topic.
PASSED_OVER: Final = frozenset({"not_inference", "no_profile", "failed", "duplicate", "half", "accounting"})


class PayloadRecord(Protocol):
    """The part of kafka-python's ConsumerRecord that is read here; `timestamp` in Unix milliseconds."""

    offset: int
    timestamp: int
    timestamp_type: int
    headers: list[tuple[str, bytes]]
    value: bytes | None
    key: bytes | None


@dataclass(frozen=True, slots=True)
class Letter:
    """A record that cannot be read, and why."""

    record: PayloadRecord
    reason: str
    problem: str


@dataclass(slots=True)
class _Group:
    """Tables of one profile, revision and slot, with predictions or all without, counted when the batch is closed.

    Inputs and predictions lie apart until then, so that those of one-row requests are joined as whole arrays.
    """

    profile: Profile
    identity: ModelIdentity
    inputs: list[Table] = field(default_factory=list)
    predictions: list[Table] = field(default_factory=list)
    exchanges: int = 0
    counters: Counter[str] = field(default_factory=Counter)


class Intake:
    """The batch being filled. `seqs` is the last row number per tap as the log's fold knows it."""

    def __init__(self, book: Book, slot_seconds: int, max_age_seconds: int, seqs: Mapping[str, int], slot: int) -> None:
        self._book, self._slot_seconds, self._max_age = book, slot_seconds, max_age_seconds * US
        self._pairing = Pairing()
        self._seqs, self._slot = dict(seqs), slot
        self._restart()

    def _restart(self) -> None:
        self._groups: dict[tuple[str, str, int, bool], _Group] = {}
        self._touched: set[str] = set()
        self._accounting: list[Mapping[str, Any]] = []
        self.letters: list[Letter] = []
        self.results: Counter[str] = Counter()
        self.records = 0

    def recall(self, record: PayloadRecord) -> None:
        """A record before the position: counted long ago, looked at only for a half that waits for its other one."""
        try:
            event = records.decode(record.headers, record.value)
        except PayloadError:
            return
        if isinstance(event, Exchange):
            self._pairing.offer(event, record)

    def take(self, record: PayloadRecord) -> None:
        """Count one record."""
        self.records += 1
        self._pairing.joined = None
        try:
            result = self._take(record)
        except PayloadError as error:
            result = error.reason
            if result not in PASSED_OVER:
                halves = (self._pairing.joined, record)  # one alone could never be counted when it is replayed
                self.letters += [Letter(half, error.reason, str(error)) for half in halves if half is not None]
        self.results[result] += 1

    def _take(self, record: PayloadRecord) -> str:
        event = records.decode(record.headers, record.value)
        if event.tapid and event.seq and not self._advance(event.tapid, event.seq):
            return "duplicate"
        if isinstance(event, Accounting):
            self._account(event)
            return "accounting"
        whole = self._pairing.offer(event, record)
        return "half" if whole is None else self._count(whole, record)

    def _advance(self, tapid: str, seq: int) -> bool:
        if seq <= self._seqs.get(tapid, 0):
            return False
        self._seqs[tapid] = seq
        self._touched.add(tapid)
        return True

    def _account(self, event: Accounting) -> None:
        self._accounting.append(
            {
                "service": [event.identity.namespace, event.identity.inferenceservice, event.identity.component],
                "from_us": event.from_us,
                "to_us": event.to_us,
                "offered": event.offered,
                "lost": sum(event.reasons.values()),
            }
        )

    def _count(self, exchange: Exchange, record: PayloadRecord) -> str:
        if exchange.method not in ("", "POST"):
            return "not_inference"
        paths.route_of(exchange.path)
        event_us = clamp_event_time(exchange.arrived_us, record.timestamp * 1000, self._max_age)
        slot = slot_of(event_us, self._slot_seconds)
        profiles = self._book.find(exchange.identity, slot)
        if not profiles:
            return "no_profile"
        self._slot = max(self._slot, slot)
        if not succeeded(exchange):
            return "failed"
        revision = exchange.identity.revision
        try:
            tables = tables_of(profiles[0].model, exchange)
        except PayloadError as error:
            self._group(profiles[0], revision, slot, answered=False).counters[counter_of(error.reason)] += 1
            raise
        for profile in profiles:
            self._add(profile, revision, slot, tables, record)
        return "counted"

    def _group(self, profile: Profile, revision: str, slot: int, *, answered: bool) -> _Group:
        key = (profile.digest, revision, slot, answered)
        found = self._groups.get(key)
        if found is None:
            identity = replace(profile.identity, revision=profile.identity.revision or revision)
            found = self._groups[key] = _Group(profile, identity)
        return found

    def _add(
        self, profile: Profile, revision: str, slot: int, tables: tuple[Table, Table | None], record: PayloadRecord
    ) -> None:
        """Count an exchange for one profile: all of it, or the rows of its segment."""
        inputs, predictions = tables
        if profile.segment is not None:
            mask = profile.segment.rows(inputs)
            inputs, predictions = _of(inputs, mask), None if predictions is None else _of(predictions, mask)
            if not inputs.rows:
                return
        group = self._group(profile, revision, slot, answered=predictions is not None)
        group.inputs.append(inputs)
        if predictions is not None:
            group.predictions.append(predictions)
        group.exchanges += 1
        if record.timestamp_type != LOG_APPEND_TIME:
            group.counters["producer_time"] += 1
        if profile.season:
            group.counters[f"{SEASON}{season_of(profile.season, slot * self._slot_seconds * US)}"] += inputs.rows

    def close(self, hi: int, gaps: tuple[tuple[int, int], ...] = ()) -> Batch:
        """The batch up to offset `hi`, out; the intake is empty afterwards, but for halves that wait."""
        parts: dict[tuple[str, str, int], list[Pane]] = defaultdict(list)
        for (digest, revision, slot, _), group in self._groups.items():
            pane = Pane.of(
                group.profile,
                joined(concat(group.inputs), concat(group.predictions) if group.predictions else None),
                slot=slot,
                identity=group.identity,
                exchanges=group.exchanges,
                counters=dict(group.counters),
            )
            parts[digest, revision, slot].append(pane)
        batch = Batch(
            hi=hi,
            panes=[total(parts[key]).to_mapping() for key in sorted(parts)],
            records=self.records,
            slot=self._slot,
            gaps=gaps,
            seqs={tap: self._seqs[tap] for tap in sorted(self._touched)},
            accounting=tuple(self._accounting),
        )
        self._restart()
        return batch


def succeeded(exchange: Exchange) -> bool:
    """KServe's agent logs what succeeded and names no status; from the tap, no status means that no answer came."""
    return exchange.status == 200 or (exchange.status is None and not exchange.tapid)


def tables_of(model: ModelSchema, exchange: Exchange) -> tuple[Table, Table | None]:
    """The inputs of an exchange and, where it has an answer, the predictions; PayloadError says why there are none."""
    request, response = _body(exchange.request, "request"), _body(exchange.response, "response")
    decoded = rows.decode_exchange_bodies(
        model,
        request,
        response,
        path=exchange.path,
        request_header_length=exchange.request.header_length if exchange.request else None,
        response_header_length=exchange.response.header_length if exchange.response else None,
    )
    if decoded.inputs is None:
        raise PayloadError("request", "no body to count rows of", reason="empty")
    return decoded.inputs, decoded.predictions


def table_of(model: ModelSchema, exchange: Exchange) -> Table:
    """Both as one table."""
    return joined(*tables_of(model, exchange))


def joined(inputs: Table, predictions: Table | None) -> Table:
    """Inputs and predictions side by side."""
    return inputs if predictions is None else Table({**inputs.columns, **predictions.columns}, inputs.rows)


def _of(table: Table, mask: NDArray[np.bool_]) -> Table:
    return Table({name: values[mask] for name, values in table.columns.items()}, int(mask.sum()))


def _body(half: Half | None, side: str) -> bytes | None:
    if half is None or (not half.body and not half.truncated):
        return None
    if half.truncated:
        raise PayloadError(side, f"cut off at {len(half.body)} of {half.size} bytes", reason="truncated")
    return half.body if not half.encoding or half.encoding == "identity" else _inflated(half, side)


_WINDOW_BITS: Final[Mapping[str, int]] = {"gzip": 31, "x-gzip": 31, "deflate": 15}


def _inflated(half: Half, side: str) -> bytes:
    bits = _WINDOW_BITS.get(half.encoding.strip().lower())
    if bits is None:
        raise PayloadError(side, f"content encoding {half.encoding[:40]!r} is not read", reason="encoding")
    stream = zlib.decompressobj(bits)
    try:
        body = stream.decompress(half.body, MAX_INFLATED)
    except zlib.error as error:
        raise PayloadError(side, f"not {half.encoding}: {error}", reason="encoding") from error
    if not stream.eof:
        raise TooLarge(side, f"over {MAX_INFLATED} bytes once decompressed, or cut off")
    return body
