"""What really lies in Kafka: the payload topic read on by a consumer of the rounds' own, and every record judged.

A reader of the topic takes, per partition and tapid, only what comes with a higher seq; so a record that comes
again must be the same, byte for byte, and one that comes first must come in order.
"""

import zlib
from collections import Counter
from contextlib import closing
from typing import Any

from fault_predictor import request_body, response_body
from fault_stack import Stack
from kafka import TopicPartition

from servelens.contract import records
from servelens.contract.events import Accounting, Exchange, Half
from servelens.io.kafka import consumer

AGAIN = 30  # records of each partition read once more in every round: a broker that came back has them still
EXCHANGE_SIDES = {"exchange": ("request", "response"), "request": ("request",), "response": ("response",)}


class Topic:
    """Everything read so far. `numbers`: the exchanges that are whole; `problems`: emptied by rounds."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._offsets: dict[int, int] = {}
        self._seen: dict[tuple[int, int], int] = {}  # partition, offset → checksum
        self._placed: dict[tuple[str, int], int] = {}  # tapid, seq → checksum
        self._last: dict[tuple[int, str], int] = {}
        self._taken: set[tuple[int, str, int]] = set()
        self._sides: dict[str, set[str]] = {}
        self.numbers: dict[int, str] = {}  # number → exchangeid
        self.repeated = self.truncated = 0
        self.offered, self.reasons = 0, Counter[str]()  # what accounting events have told
        self.problems: list[str] = []

    def read(self, again: int = AGAIN) -> None:
        """Read on to the end as of now, beginning `again` records before the last one known."""
        with closing(consumer(self._stack.settings)) as client:
            parts = [TopicPartition(self._stack.topic, number) for number in range(4)]
            client.assign(parts)
            begins, ends = client.beginning_offsets(parts), client.end_offsets(parts)
            for part in parts:
                known = self._offsets.get(part.partition, 0)
                if ends[part] < known:
                    self.problems.append(f"partition {part.partition} ended at {known} and now ends at {ends[part]}")
                client.seek(part, max(begins[part], known - again))
            while any(client.position(part) < ends[part] for part in parts):
                for found in client.poll(timeout_ms=200).values():
                    for record in found:
                        self._one(record)

    def _one(self, record: Any) -> None:
        where = record.partition, record.offset
        checksum = zlib.crc32(repr((record.key, record.headers)).encode(), zlib.crc32(record.value or b""))
        known = self._seen.setdefault(where, checksum)
        if record.offset < self._offsets.get(record.partition, 0):
            if known != checksum:
                self.problems.append(f"{where} is another record than it was")
            return
        self._offsets[record.partition] = record.offset + 1
        attributes, _ = records.read_headers(record.headers)
        if self._first(record.partition, attributes["tapid"], int(attributes["seq"]), checksum):
            self._take(attributes["id"], records.decode(record.headers, record.value))

    def _first(self, partition: int, tapid: str, seq: int, checksum: int) -> bool:
        """Whether it comes for the first time; then it must come in order, and else be what came before."""
        before = self._placed.setdefault((tapid, seq), checksum)
        last = self._last.get((partition, tapid), 0)
        if seq > last:
            self._last[partition, tapid] = seq
            self._taken.add((partition, tapid, seq))
            return True
        self.repeated += 1
        if before != checksum:
            self.problems.append(f"row {seq} of {tapid} came again as another one")
        elif (partition, tapid, seq) not in self._taken:
            self.problems.append(f"row {seq} of {tapid} came for the first time after row {last}")
        return False

    def _take(self, event: str, found: Exchange | Accounting) -> None:
        if isinstance(found, Accounting):
            self.offered += found.offered
            self.reasons.update(found.reasons)
            return
        number = int(found.requestid.removeprefix("n-"))
        sides = EXCHANGE_SIDES[event.rpartition("/")[2]]
        expected = request_body(number)
        if "request" in sides:
            self._judge(number, found.request, expected)
        if "response" in sides and found.status == 200:
            self._judge(number, found.response, response_body(expected))
        whole = self._sides.setdefault(found.exchangeid, set())
        whole |= set(sides)
        if len(whole) == 2:
            del self._sides[found.exchangeid]
            if self.numbers.setdefault(number, found.exchangeid) != found.exchangeid:
                self.problems.append(f"request {number} is two exchanges")

    def _judge(self, number: int, half: Half | None, expected: bytes) -> None:
        body = half.body if half else b""
        if half is not None and half.truncated:
            self.truncated += 1
            expected = expected[: len(body)]
        if body != expected:
            self.problems.append(
                f"a body of request {number} is not what was sent: {len(body)} of {len(expected)} bytes"
            )
