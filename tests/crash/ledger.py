"""The producer and its own ledger: what was sent when, of which model, and where it lies; nothing of the detector's.

Apart from `checks`, which compares. Two models in turn, some rows late, some records twice as after a producer's
crash, some that cannot be read.
"""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import risk_model

from servelens.contract.events import Record
from servelens.contract.times import US
from servelens.io.kafka import producer
from servelens.io.kafka_settings import KafkaSettings

ROWS = 8  # an exchange
MODELS = ("risk", "churn")
Key = tuple[str, int]  # model, second of event time


@dataclass(frozen=True, slots=True)
class Sent:
    """One exchange: its model, its second of event time, and where its one or two records lie."""

    model: str
    second: int
    places: tuple[tuple[int, int], ...]  # (partition, offset)


@dataclass(slots=True)
class Producer:
    """Sends from a thread at a steady rate until `total` exchanges or `stop`; `sent` is the ledger."""

    kafka: KafkaSettings
    topic: str
    total: int
    rate: float
    seed: int
    sent: list[Sent] = field(default_factory=list)
    letters: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    _flying: list[tuple[str, int, list[Any]]] = field(default_factory=list)

    def run(self) -> None:
        client = producer(self.kafka, delivery_timeout_ms=600_000, request_timeout_ms=10_000)
        rng, began = np.random.default_rng(self.seed), time.monotonic()
        for number in range(self.total):
            if self.stop.is_set():
                break
            self._send(client, rng, number)
            if number % 20 == 0:
                self._settle(block=False)
            time.sleep(max(0.0, began + number / self.rate - time.monotonic()))
        client.flush()
        self._settle(block=True)
        client.close()

    def _send(self, client: Any, rng: np.random.Generator, number: int) -> None:
        model = MODELS[number % len(MODELS)]
        chance = rng.random()
        behind = int(rng.integers(12, 30)) if chance < 0.01 else 0  # later than any lateness: a late row
        at_us = time.time_ns() // 1000 - behind * US
        identity = replace(risk_model.IDENTITY, inferenceservice=model)
        made = risk_model.make_record(rng, ROWS, at_us, number + 1, identity=identity)
        if chance > 0.995:
            self.letters += 1
            made = Record(made.key, made.headers, made.value[:-7], made.timestamp_ms)
        copies = 2 if 0.5 < chance < 0.51 else 1
        about = {"key": made.key, "value": made.value, "headers": list(made.headers)}
        futures = [client.send(self.topic, **about) for _ in range(copies)]
        if chance <= 0.995:
            self._flying.append((model, at_us // US, futures))

    def _settle(self, block: bool) -> None:
        """Move what Kafka has acknowledged into the ledger."""
        left = []
        for model, second, futures in self._flying:
            if not block and not all(future.is_done for future in futures):
                left.append((model, second, futures))
                continue
            found = [future.get(120) for future in futures]
            self.sent.append(Sent(model, second, tuple((one.partition, one.offset) for one in found)))
        self._flying = left

    def rows(self) -> Counter[Key]:
        """Rows by model and second."""
        counted: Counter[Key] = Counter()
        for one in self.sent:
            counted[one.model, one.second] += ROWS
        return counted
