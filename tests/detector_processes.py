"""Detector processes on a broker, what is sent to them and what comes out, for the tests of streams and reports."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import orjson

from detectors import fence
from detectors.fence import Fold
from servelens.contract.events import Record
from servelens.contract.topics import Topics
from servelens.io.kafka import producer, read_all
from servelens.io.kafka_settings import KafkaSettings

PARTITIONS = 2
ROWS = 4
GROUP = "g"


@contextmanager
def detector(
    kafka: KafkaSettings, prefix: str, profiles: Path, role: str, *more: str
) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        sys.executable, "-m", "servelens.cli", "detector", "--role", role, "--group", GROUP,
        "--kafka", kafka.bootstrap, "--topic-prefix", prefix, "--profiles", str(profiles),
        "--listen", "127.0.0.1:0", "--slot", "1s", "--lateness", "4s", "--lease", "2s", "--silence", "5s",
        "--shortest-window", "1s", "--heartbeat", "0s", *more,
    ]  # fmt: skip
    log = (profiles.parent / f"{role}.log").open("ab")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    try:
        assert process.stdout is not None
        process.address = json.loads(process.stdout.readline())["listening"]  # type: ignore[attr-defined]
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        log.close()


def send(kafka: KafkaSettings, topic: str, made: Sequence[Record]) -> None:
    client = producer(kafka)
    for record in made:
        client.send(
            topic, key=record.key, value=record.value, headers=list(record.headers), timestamp_ms=record.timestamp_ms
        )
    client.flush()
    client.close()


def accepted_rows(kafka: KafkaSettings, prefix: str) -> int:
    rows = 0
    for partition in range(PARTITIONS):
        fold = Fold()
        for record in read_all(kafka, Topics(prefix).panes(GROUP), partition):
            outcome = fold.apply(record.offset, fence.decode(record.value))
            if outcome.verdict == "accepted":
                rows += sum(pane["rows"] for _, pane in outcome.panes)
    return rows


def verdicts(kafka: KafkaSettings, prefix: str) -> dict[str, dict[str, object]]:
    found = [orjson.loads(record.value) for record in read_all(kafka, Topics(prefix).verdicts, 0)]
    return {verdict["id"]: verdict for verdict in found}


def until(what: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "not within its time"
        time.sleep(0.3)


def wait_for_rows(kafka: KafkaSettings, prefix: str, rows: int, seconds: float = 60) -> None:
    until(lambda: accepted_rows(kafka, prefix) >= rows, seconds)


def burst(make: Callable[..., Record], rng: np.random.Generator, count: int, start: int, shift: float) -> list[Record]:
    """`count` exchanges of this moment, rows numbered from `start` under one tap."""
    now = time.time_ns() // 1000
    return [make(rng, ROWS, now, start + number, shift) for number in range(count)]
