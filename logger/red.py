"""Rate, errors and duration of every exchange, logged or not: Standard mode has no such metrics of its own.

Apart since it is the hot path's other half: an exchange costs one dict entry and one bucket here; the instruments,
which lock and write to a shared file at each step, are fed in bulk a few times a second.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from logger.answers import CLOSED_EARLY, FAILURES
from logger.bulk import BulkHistogram
from servelens.contract.metrics import LATENCY, Instruments

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
_OTHER: Final = "OTHER"


class Red:
    """Counts of one tap; `service` holds the identity labels. `flush` carries them over to the instruments."""

    def __init__(self, instruments: Instruments, service: Mapping[str, str]) -> None:
        self._instruments, self._service = instruments, dict(service)
        self._duration = self._bound("servelens_request_duration_seconds")
        self._in_flight = self._bound("servelens_requests_in_flight")
        self._capture = self._bound("servelens_logger_capture_bytes")
        self._unfit = self._bound("servelens_logger_requestid_dropped_total")
        # A counter that is not there at 0 hides its first increase from every query.
        for reason in (*FAILURES, CLOSED_EARLY):
            self._bound("servelens_upstream_errors_total", reason=reason)
        self._children: dict[tuple[str, int], Any] = {}
        self._codes = Counter[tuple[str, int]]()
        self._seconds = BulkHistogram(self._duration, LATENCY)
        self.in_flight = 0

    def _bound(self, name: str, **labels: str) -> Any:
        return self._instruments[name].labels(**self._service, **labels)

    def answered(self, method: str, status: int, seconds: float) -> None:
        """One exchange answered, `seconds` after its request head."""
        self._codes[method, status] += 1
        self._seconds.observe(seconds)

    def unfit_request_id(self) -> None:
        """A client's request id was dropped."""
        self._unfit.inc()

    def upstream_error(self, reason: str) -> None:
        """An exchange got no answer of the predictor's."""
        self._bound("servelens_upstream_errors_total", reason=reason).inc()

    def task_error(self, task: str) -> None:
        """An unexpected error was caught."""
        self._instruments["servelens_task_errors_total"].labels(task=task).inc()

    def flush(self, capture_bytes: int) -> None:
        """Bring the instruments up to date."""
        self._in_flight.set(self.in_flight)
        self._capture.set(capture_bytes)
        for key, count in self._codes.items():
            self._child(*key).inc(count)
        self._codes.clear()
        self._seconds.flush()

    def _child(self, method: str, status: int) -> Any:
        key = (method if method in _METHODS else _OTHER, status)
        if key not in self._children:
            self._children[key] = self._bound("servelens_requests_total", method=key[0], code=str(status))
        return self._children[key]
