"""What is told of rows on their way to Kafka: how long they took, and the spans of those that are traced.

Apart from `shipping`, which moves rows and knows nothing of what is in them. Called by it; made by the shipper.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

from logger.backlog import Position
from logger.bulk import BulkHistogram
from logger.refusal import Headers
from logger.spans import Sends
from servelens.contract.events import EXCHANGE_TYPE, HALF_TYPES
from servelens.contract.metrics import LATENCY, Instruments
from servelens.contract.tracecontext import SpanValues

_FLUSH_NS: Final = 1_000_000_000
_TYPES: Final = ("exchange", "request", "response")
_BY_EVENT: Final = {EXCHANGE_TYPE.encode(): "exchange", **{kind.encode(): side for kind, side in HALF_TYPES.items()}}


class Deliveries:
    """`service` are the identity's label values, `record` takes spans; `now_ns` is the wall clock in nanoseconds."""

    def __init__(
        self,
        topic: str,
        instruments: Instruments,
        service: Sequence[str],
        record: Callable[[SpanValues], None] | None = None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._record, self._now, self._flushed = record, now_ns, 0
        self._sends = Sends(topic) if record is not None else None
        metric = instruments["kserve_logger_delivery_duration_seconds"]
        self._durations = {name: BulkHistogram(metric.labels(*service, name), LATENCY) for name in _TYPES}
        self._away: dict[Position, tuple[int, str]] = {}

    def sent(self, position: Position, headers: Headers) -> None:
        """A row was given to the client."""
        now = self._now()
        kind = next((value for name, value in headers if name == "ce_type"), b"")
        if (name := _BY_EVENT.get(kind)) is not None:  # no label, accounting event or dead letter
            self._away[position] = now, name
        if self._sends is not None:
            self._sends.sent(position, headers, now)

    def landed(self, positions: Sequence[Position]) -> None:
        """Rows were acknowledged, or let pass."""
        now = self._now()
        for position in positions:
            if (found := self._away.pop(position, None)) is not None:
                self._durations[found[1]].observe((now - found[0]) * 1e-9)
        if self._sends is not None and self._record is not None and (span := self._sends.landed(positions, now)):
            self._record(span)
        if now - self._flushed > _FLUSH_NS:
            self.flush()

    def ended(self) -> None:
        """The producer is gone: what has not landed is sent anew by the next one."""
        self._away.clear()
        if self._sends is not None:
            self._sends.forget()
        self.flush()

    def flush(self) -> None:
        """Bring the metrics up to date."""
        self._flushed = self._now()
        for histogram in self._durations.values():
            histogram.flush()
