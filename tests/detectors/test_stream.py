"""Payload records in, verdicts out: the worker and evaluator processes on a real broker, alive, killed and stopped."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import orjson
import pytest

from detectors import fence
from detectors.fence import Fold
from servelens.contract.events import Record
from servelens.contract.topics import Topics, group_topics, shared_topics
from servelens.io import topics
from servelens.io.kafka import producer, read_all
from servelens.io.kafka_settings import KafkaSettings

PARTITIONS = 2
ROWS = 4
GROUP = "g"


@pytest.fixture
def stream(any_kafka: KafkaSettings, prefix: str) -> KafkaSettings:
    topics.create(any_kafka, (*shared_topics(prefix, PARTITIONS), *group_topics(prefix, PARTITIONS, GROUP)))
    return any_kafka


@contextmanager
def detector(kafka: KafkaSettings, prefix: str, profiles: Path, role: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        sys.executable, "-m", "servelens.cli", "detector", "--role", role, "--group", GROUP,
        "--kafka", kafka.bootstrap, "--topic-prefix", prefix, "--profiles", str(profiles),
        "--listen", "127.0.0.1:0", "--slot", "1s", "--lateness", "4s", "--lease", "2s", "--silence", "5s",
    ]  # fmt: skip
    log = (profiles.parent / f"{role}.log").open("ab")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    try:
        assert process.stdout is not None
        assert set(json.loads(process.stdout.readline())) == {"listening"}
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


def wait_for_rows(kafka: KafkaSettings, prefix: str, rows: int) -> None:
    until(lambda: accepted_rows(kafka, prefix) >= rows, 60)


def burst(make: Callable[..., Record], rng: np.random.Generator, count: int, start: int, shift: float) -> list[Record]:
    """`count` exchanges of this moment, rows numbered from `start` under one tap."""
    now = time.time_ns() // 1000
    return [make(rng, ROWS, now, start + number, shift) for number in range(count)]


def test_a_shift_becomes_a_verdict_with_the_right_column(
    stream: KafkaSettings, prefix: str, profiles: Path, exchange_record: Callable[..., Record]
) -> None:
    rng = np.random.default_rng(1)
    sent = 0
    with detector(stream, prefix, profiles, "worker"), detector(stream, prefix, profiles, "evaluator"):
        for shift in (0.0, 0.0, 0.0, 1.0, 1.0, 1.0):
            made = burst(exchange_record, rng, 300, sent + 1, shift)
            send(stream, Topics(prefix).payloads, [*made, made[0]])  # one record twice: a repeat after a crash
            sent += len(made)
            time.sleep(2.1)
        wait_for_rows(stream, prefix, sent * ROWS)
        until(lambda: len(verdicts(stream, prefix)) >= 5, 60)
    states = [verdict["state"] for verdict in sorted(verdicts(stream, prefix).values(), key=lambda v: str(v["slots"]))]
    assert states[:3] == ["ok", "ok", "ok"]
    assert "drift" in states
    drifted = {c["column"] for v in verdicts(stream, prefix).values() for c in v["columns"] if c["state"] == "drift"}  # type: ignore[attr-defined]
    assert drifted == {"age"}
    assert accepted_rows(stream, prefix) == sent * ROWS


@pytest.mark.slow
def test_kills_and_zombies_change_no_count(
    stream: KafkaSettings, prefix: str, profiles: Path, exchange_record: Callable[..., Record]
) -> None:
    rng, chance = np.random.default_rng(2), random.Random(3)
    sent = 0
    for round_number in range(2):
        with (
            detector(stream, prefix, profiles, "worker") as first,
            detector(stream, prefix, profiles, "worker") as second,
        ):
            for _ in range(6):
                made = burst(exchange_record, rng, 100, sent + 1, 0.0)
                send(stream, Topics(prefix).payloads, made)
                sent += len(made)
                time.sleep(chance.uniform(0.2, 0.8))
            if round_number % 2:
                os.kill(first.pid, signal.SIGSTOP)  # longer than the session: the other takes over, then it wakes
                wait_for_rows(stream, prefix, sent * ROWS)
                os.kill(first.pid, signal.SIGCONT)
                time.sleep(1)
            else:
                second.kill()
    with detector(stream, prefix, profiles, "worker"):
        wait_for_rows(stream, prefix, sent * ROWS)
        time.sleep(1)
    assert accepted_rows(stream, prefix) == sent * ROWS


def test_the_verdicts_of_a_killed_evaluator_are_those_of_its_successor(
    stream: KafkaSettings, prefix: str, profiles: Path, exchange_record: Callable[..., Record]
) -> None:
    rng = np.random.default_rng(4)
    sent = 0
    with detector(stream, prefix, profiles, "worker"):
        for _ in range(3):
            with detector(stream, prefix, profiles, "evaluator"):
                for _ in range(2):
                    made = burst(exchange_record, rng, 260, sent + 1, 0.0)
                    send(stream, Topics(prefix).payloads, made)
                    sent += len(made)
                    time.sleep(2.5)
        with detector(stream, prefix, profiles, "evaluator"):
            until(lambda: len(verdicts(stream, prefix)) >= 4, 60)
    found = sorted(verdicts(stream, prefix).values(), key=lambda verdict: verdict["slots"])  # type: ignore[arg-type,return-value]
    for earlier, later in pairwise(found):
        assert later["slots"][0] == earlier["slots"][1] + 1  # type: ignore[index]
    rows = [verdict["rows"] for verdict in found]
    assert all(isinstance(count, int) and count >= 1000 for count in rows)


def test_what_cannot_be_read_is_a_dead_letter_with_its_reason(
    stream: KafkaSettings, prefix: str, profiles: Path, exchange_record: Callable[..., Record]
) -> None:
    rng = np.random.default_rng(5)
    good = exchange_record(rng, ROWS, time.time_ns() // 1000, 1)
    broken = Record(good.key, good.headers, good.value[:-9], good.timestamp_ms)
    nonsense = Record(b"k", (("ce_specversion", b"1.0"), ("ce_type", b"what.ever"), ("ce_id", b"1")), b"{}", 0)
    with detector(stream, prefix, profiles, "worker"):
        send(stream, Topics(prefix).payloads, [broken, nonsense, exchange_record(rng, ROWS, time.time_ns() // 1000, 2)])
        wait_for_rows(stream, prefix, ROWS)
    letters = [
        record
        for partition in range(PARTITIONS)
        for record in read_all(stream, Topics(prefix).dead_letters(GROUP), partition)
    ]
    reasons = sorted(dict(record.headers)["servelens_reason"].decode() for record in letters)
    assert reasons == ["truncated", "unknown_type"]
    assert {record.value for record in letters} == {broken.value, b"{}"}
