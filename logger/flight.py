"""One producer's life: rows sent in order, and what became of them.

kafka-python keeps one batch in flight per partition, but after a batch has failed it would go on with the next one. A
row sent again later would then come after its successors, and whoever reads the topic by (tapid, seq) would take it
for a duplicate. So the first failure grounds the whole producer, in its own thread, before it sends anything else.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from kafka.errors import KafkaError, KafkaTimeoutError

from logger.backlog import Entry, Position
from logger.refusal import Headers

log = logging.getLogger(__name__)

MAX_ROWS: Final = 2000
MAX_BYTES: Final = 4 << 20
STUCK: Final = 90.0  # seconds; the client's own delivery timeout is a third of it


class _Sent(NamedTuple):
    entry: Entry
    future: Any  # None where nothing had to be sent
    at: float
    size: int


class Flight:
    """A window of rows under way. Not shared between threads, but for the fault the client's thread notes."""

    def __init__(self, producer: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._producer, self._clock = producer, clock
        self._window: deque[_Sent] = deque()
        self._bytes = 0
        self.fault: BaseException | None = None

    def __len__(self) -> int:
        return len(self._window)

    @property
    def room(self) -> tuple[int, int]:
        """Rows and bytes that may still be sent; nothing after a fault."""
        return (0, 0) if self.fault else (MAX_ROWS - len(self._window), MAX_BYTES - self._bytes)

    def send(self, entry: Entry, topic: str, headers: Headers, value: bytes, timestamp_ms: int | None) -> None:
        """Send one row; raises kafka's MessageSizeTooLargeError before anything is sent, if the client refuses."""
        future = self._producer.send(topic, value, entry.row.key, list(headers), timestamp_ms=timestamp_ms)
        future.add_errback(self._ground)
        self._note(entry, future)

    def skip(self, entry: Entry) -> None:
        """Let a row pass in its place without sending it."""
        self._note(entry, None)

    def _note(self, entry: Entry, future: Any) -> None:
        size = entry.row.size
        self._window.append(_Sent(entry, future, self._clock(), size))
        self._bytes += size

    def _ground(self, error: BaseException) -> None:
        if self.fault is None:
            self.fault = error
            self._producer._sender.force_close()  # noqa: SLF001 - close() would wait for its own thread

    def landed(self) -> list[Entry]:
        """Rows acknowledged, or skipped, with every row before them."""
        done: list[Entry] = []
        while self._window and _is_down(self._window[0]):
            sent = self._window.popleft()
            self._bytes -= sent.size
            done.append(sent.entry)
        if self._window and self.fault is None and self._clock() - self._window[0].at > STUCK:
            self._ground(KafkaTimeoutError(f"no answer within {STUCK:.0f} s"))
        return done

    def close(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for what is under way, and end the producer."""
        try:
            self._producer.close(timeout=max(timeout, 0.5))
        except KafkaError:
            self._producer._sender.force_close()  # noqa: SLF001 - close() has given up before it came to this
            self._producer._sender.join(1.0)  # noqa: SLF001

    def out_of_turn(self) -> tuple[set[Position], dict[Position, BaseException]]:
        """What is left after `close`: rows acknowledged behind one that was not, and the failed ones with why."""
        down = {sent.entry.position for sent in self._window if _is_down(sent)}
        failed = {
            sent.entry.position: sent.future.exception for sent in self._window if sent.future and sent.future.failed()
        }
        return down, failed


def _is_down(sent: _Sent) -> bool:
    return sent.future is None or bool(sent.future.succeeded())
