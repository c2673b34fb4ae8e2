"""The two halves of an exchange that came as two events: held until both are there. No I/O.

KServe's agent and the log modes `all` send halves, in any order. What is held is bounded in number and bytes; the
oldest half gives way and is counted. After a restart the worker re-reads a stretch before its position, so that a half
read before the restart still finds its other one.
"""

from collections import OrderedDict
from dataclasses import replace
from typing import Any, Final

from servelens.contract.events import Exchange

MOST_HALVES: Final = 4096
MOST_BYTES: Final = 32 << 20


class Pairing:
    """Halves by exchange id, each with the record it came in. `unpaired` counts those given up.

    `joined`: the record of the half that the last exchange was completed with; None for one that came whole.
    """

    def __init__(self, most: int = MOST_HALVES, most_bytes: int = MOST_BYTES) -> None:
        self._held: OrderedDict[str, tuple[Exchange, Any]] = OrderedDict()
        self.joined: Any = None
        self._most, self._most_bytes, self._bytes = most, most_bytes, 0
        self.unpaired = 0

    def offer(self, exchange: Exchange, record: Any = None) -> Exchange | None:
        """The whole exchange once both halves are known, None while one is missing; whole ones pass at once."""
        self.joined = None
        if exchange.request is not None and exchange.response is not None:
            return exchange
        other, came_in = self._held.pop(exchange.exchangeid, (None, None))
        if other is not None:
            self._bytes -= _size(other)
        if other is None or (other.request is None) == (exchange.request is None):
            self._hold(exchange, record)  # the same half again: the newer stands
            return None
        self.joined = came_in
        asked, answered = (exchange, other) if exchange.request is not None else (other, exchange)
        return replace(
            asked,
            response=answered.response,
            status=answered.status if answered.status is not None else asked.status,
            sources=asked.sources + answered.sources,
        )

    def _hold(self, exchange: Exchange, record: Any) -> None:
        self._held[exchange.exchangeid] = (exchange, record)
        self._bytes += _size(exchange)
        while len(self._held) > self._most or (self._bytes > self._most_bytes and len(self._held) > 1):
            _, (oldest, _) = self._held.popitem(last=False)
            self._bytes -= _size(oldest)
            self.unpaired += 1


def _size(exchange: Exchange) -> int:
    return sum(len(half.body) for half in (exchange.request, exchange.response) if half is not None)
