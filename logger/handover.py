"""What becomes of each exchange the observer sees: measured, counted, and handed to the recorder as a frame.

Apart from the observer, which knows no clock, and from the link, which knows no exchange. One for all connections.
"""

import os
import random
import time
from collections.abc import Callable
from typing import Protocol

from logger.account import AccountFile
from logger.budget import Budget
from logger.capture import encode
from logger.red import Red
from logger.seen import (
    Headers,
    Seen,
    claims_synthetic,
    is_probe,
    request_id,
    synthetic_token,
    trace_parent,
)
from servelens.contract.identity import new_exchange_id


class Sink(Protocol):
    """Where frames go: keeps each, with its bytes taken from the budget, until it is committed."""

    def cost(self, payload: bytes) -> int:
        """The bytes a frame of this payload will hold of the budget."""

    def send(self, payload: bytes) -> None:
        """Take over the next frame, whose cost has been taken from the budget."""


def nobody(_: str) -> bool:
    """The synthetic check of a tap without a key."""
    return False


class Handover:
    """The tap's `Watch`. Without an account and a sink exchanges are measured only, and nothing is captured.

    While `expecting` an account that cannot be had yet, `missed` counts what passes before `log_to` is called.

    `synthetic` judges the values of our guard header; `now_ns` is the wall clock, `tick_ns` a monotonic one.
    """

    def __init__(
        self,
        red: Red,
        budget: Budget,
        logged: tuple[AccountFile, Sink] | None = None,
        synthetic: Callable[[str], bool] = nobody,
        now_ns: Callable[[], int] = time.time_ns,
        tick_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._red, self._budget, self._logged, self._synthetic = red, budget, logged, synthetic
        self._now, self._tick = now_ns, tick_ns
        self.expecting, self.missed = False, 0
        # No secret, only an id that must not repeat: seeded once from the system, six times as fast as asking it.
        self._random = random.Random(os.urandom(32)).getrandbits  # noqa: S311

    def begun(self, seen: Seen, headers: Headers) -> None:
        """Start the clocks; offer the exchange, unless it is kubelet's probe."""
        self._red.in_flight += 1
        seen.started_ns = self._tick()
        if self._logged is None or is_probe(seen.method, headers):
            if self.expecting and not is_probe(seen.method, headers):
                self.missed += 1
            return
        seen.arrived_us = self._now() // 1000
        account = self._logged[0]
        account.add("offered")
        seen.claimedsynthetic = claims_synthetic(headers)
        if seen.claimedsynthetic and self._synthetic(synthetic_token(headers)):
            account.add("synthetic")
            return
        seen.keep = True
        seen.traceparent = trace_parent(headers)
        seen.requestid, unfit = request_id(headers)
        if unfit:
            self._red.unfit_request_id()

    def log_to(self, account: AccountFile, sink: Sink) -> None:
        """Log from here on; what was missed is counted as what there was no room for."""
        account.add("offered", self.missed)
        account.add("over_budget", self.missed)
        self._logged, self.expecting, self.missed = (account, sink), False, 0

    def answered(self, seen: Seen) -> None:
        """Stop the clock; an exchange that died without any response head is in no rate."""
        elapsed = self._tick() - seen.started_ns
        seen.duration_us = elapsed // 1000
        self._red.in_flight -= 1
        if seen.status is not None:
            self._red.answered(seen.method, seen.status, elapsed * 1e-9)

    def finished(self, seen: Seen) -> None:
        """Hand the exchange over, or drop it if there is no room."""
        if self._logged is None or not seen.keep:
            return
        account, sink = self._logged
        arrived_ms = seen.arrived_us // 1000
        seen.exchangeid = new_exchange_id(lambda: arrived_ms, self._random)
        payload = encode(seen)
        self._release(seen)
        if self._budget.take(sink.cost(payload)):
            account.add("handed")
            sink.send(payload)
        else:
            account.add("over_budget")

    def dropped(self, seen: Seen, reason: str) -> None:
        """Count an offered exchange under a tap reason, once, and let go of what it held."""
        if self._logged is not None and seen.keep:
            self._logged[0].add(reason)
            self._release(seen)

    def unseen(self, reason: str) -> None:
        """Offer and drop an exchange of which nothing could be read."""
        if self._logged is not None:
            self._logged[0].add("offered")
            self._logged[0].add(reason)

    def _release(self, seen: Seen) -> None:
        self._budget.give(seen.held)
        seen.held, seen.keep = 0, False
        seen.request.body = b""
        if seen.response is not None:
            seen.response.body = b""
