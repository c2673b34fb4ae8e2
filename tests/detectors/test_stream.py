"""Payload records in, verdicts out: the worker and evaluator processes on a real broker, alive, killed and stopped."""

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import TOOLS, has
from detector_processes import (
    GROUP,
    PARTITIONS,
    ROWS,
    accepted_rows,
    burst,
    detector,
    send,
    until,
    verdicts,
    wait_for_rows,
)
from risk_model import rows_of, table_of

from detectors import activation, replay
from detectors.letters import replayed
from detectors.profile import Profile, build_profile
from servelens.contract.events import Record
from servelens.contract.schema import ModelSchema
from servelens.contract.times import US
from servelens.contract.topics import Topics, group_topics, shared_topics
from servelens.io import topics
from servelens.io.kafka import admin, producer, read_all, topic_ids
from servelens.io.kafka_settings import KafkaSettings


@pytest.fixture
def stream(any_kafka: KafkaSettings, prefix: str) -> KafkaSettings:
    topics.create(any_kafka, (*shared_topics(prefix, PARTITIONS), *group_topics(prefix, PARTITIONS, GROUP)))
    return any_kafka


# The crash proof does all this and more, on Apache Kafka; it takes a JDK.
without_crash_proof = pytest.mark.skipif(has(*TOOLS["jdk"]), reason="the crash proof runs here, and does this too")


@pytest.fixture
def embedded(kafka: KafkaSettings, prefix: str) -> KafkaSettings:
    """The topics on the embedded broker."""
    topics.create(kafka, (*shared_topics(prefix, PARTITIONS), *group_topics(prefix, PARTITIONS, GROUP)))
    return kafka


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
@without_crash_proof
def test_kills_and_zombies_change_no_count(
    embedded: KafkaSettings, prefix: str, profiles: Path, exchange_record: Callable[..., Record]
) -> None:
    rng, chance = np.random.default_rng(2), random.Random(3)
    sent = 0
    for round_number in range(2):
        with (
            detector(embedded, prefix, profiles, "worker") as first,
            detector(embedded, prefix, profiles, "worker") as second,
        ):
            for _ in range(6):
                made = burst(exchange_record, rng, 100, sent + 1, 0.0)
                send(embedded, Topics(prefix).payloads, made)
                sent += len(made)
                time.sleep(chance.uniform(0.2, 0.8))
            if round_number % 2:
                os.kill(first.pid, signal.SIGSTOP)  # longer than the session: the other takes over, then it wakes
                wait_for_rows(embedded, prefix, sent * ROWS)
                os.kill(first.pid, signal.SIGCONT)
                time.sleep(1)
            else:
                second.kill()
    with detector(embedded, prefix, profiles, "worker"):
        wait_for_rows(embedded, prefix, sent * ROWS)
        time.sleep(1)
    assert accepted_rows(embedded, prefix) == sent * ROWS


@without_crash_proof
def test_the_verdicts_of_a_killed_evaluator_are_those_of_its_successor(
    embedded: KafkaSettings, prefix: str, profiles: Path, exchange_record: Callable[..., Record]
) -> None:
    rng = np.random.default_rng(4)
    sent = 0
    with detector(embedded, prefix, profiles, "worker"):
        for _ in range(3):
            with detector(embedded, prefix, profiles, "evaluator"):
                for _ in range(2):
                    made = burst(exchange_record, rng, 260, sent + 1, 0.0)
                    send(embedded, Topics(prefix).payloads, made)
                    sent += len(made)
                    time.sleep(2.5)
        with detector(embedded, prefix, profiles, "evaluator"):
            until(lambda: len(verdicts(embedded, prefix)) >= 4, 60)
    found = sorted(verdicts(embedded, prefix).values(), key=lambda verdict: verdict["slots"])  # type: ignore[arg-type,return-value]
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


def test_a_letter_that_is_replayed_counts_once_however_often(
    stream: KafkaSettings, prefix: str, profiles: Path, exchange_record: Callable[..., Record]
) -> None:
    rng = np.random.default_rng(6)
    good = exchange_record(rng, ROWS, time.time_ns() // 1000, 1)
    letters = Topics(prefix).dead_letters(GROUP)
    lain = Record(good.key, (*good.headers, ("servelens_reason", b"malformed")), good.value, good.timestamp_ms)
    send(stream, letters, [lain])
    assert replay.look(stream, prefix, GROUP).reasons == {"malformed": 1}
    with detector(stream, prefix, profiles, "worker"):
        assert replay.replay(stream, prefix, GROUP) == {"malformed": 1}
        wait_for_rows(stream, prefix, ROWS)
        assert replay.look(stream, prefix, GROUP).waiting == 0
        where = topic_ids(stream, [letters])[letters]
        again = [
            replayed(row, where, partition)
            for partition in range(PARTITIONS)
            for row in read_all(stream, letters, partition)
        ]
        send(stream, Topics(prefix).retry(GROUP), again)  # as a replay that died before it had committed would
        send(stream, Topics(prefix).payloads, [exchange_record(rng, ROWS, time.time_ns() // 1000, 2)])
        wait_for_rows(stream, prefix, 2 * ROWS)
        time.sleep(2)
    assert accepted_rows(stream, prefix) == 2 * ROWS
    # The log knows the group's slots now, and refuses a worker of others.
    with detector(stream, prefix, profiles, "worker", "--slot", "2s") as other:
        assert other.wait(40) == 2
    assert "the group counts in slots of 1 s" in (profiles.parent / "worker.log").read_text()


def test_a_letter_that_fails_again_waits_for_the_next_replay(
    kafka: KafkaSettings, prefix: str, profiles: Path, exchange_record: Callable[..., Record]
) -> None:
    """With a worker that lays every one aside again, a replay must still come to its end."""
    topics.create(kafka, (*shared_topics(prefix, PARTITIONS), *group_topics(prefix, PARTITIONS, GROUP)))
    good = exchange_record(np.random.default_rng(11), ROWS, time.time_ns() // 1000, 1)
    broken = Record(good.key, good.headers, good.value[:-9], good.timestamp_ms)
    with detector(kafka, prefix, profiles, "worker"):
        send(kafka, Topics(prefix).payloads, [broken])
        for lain in (1, 2):
            until(lambda lain=lain: replay.look(kafka, prefix, GROUP).letters == lain, 40)  # type: ignore[misc]
            assert replay.replay(kafka, prefix, GROUP).total() == 1
        until(lambda: replay.look(kafka, prefix, GROUP).letters == 3, 40)
    assert replay.look(kafka, prefix, GROUP).waiting == 1


def test_a_topic_that_is_made_anew_under_a_running_worker_is_counted_from_its_beginning(
    kafka: KafkaSettings, prefix: str, profiles: Path, exchange_record: Callable[..., Record]
) -> None:
    specs = (*shared_topics(prefix, PARTITIONS), *group_topics(prefix, PARTITIONS, GROUP))
    topics.create(kafka, specs)
    rng, payloads = np.random.default_rng(8), Topics(prefix).payloads
    now = time.time_ns() // 1000
    with detector(kafka, prefix, profiles, "worker"):
        send(kafka, payloads, [exchange_record(rng, ROWS, now, seq, tapid="old") for seq in range(1, 41)])
        wait_for_rows(kafka, prefix, 40 * ROWS)
        with closing(admin(kafka)) as client:
            client.delete_topics([payloads])
        time.sleep(1)
        topics.create(kafka, specs)
        send(kafka, payloads, [exchange_record(rng, ROWS, now, seq, tapid="new") for seq in range(1, 11)])
        wait_for_rows(kafka, prefix, 50 * ROWS, 90)
        time.sleep(2)
    assert accepted_rows(kafka, prefix) == 50 * ROWS


def test_an_announced_profile_takes_over_at_its_slot_and_both_are_named_around_it(
    embedded: KafkaSettings, prefix: str, profiles: Path, profile: Profile, model: ModelSchema,
    exchange_record: Callable[..., Record],
) -> None:  # fmt: skip
    """Without the command's notice, which is for clocks that differ: here one clock writes everything."""
    rng = np.random.default_rng(10)
    newer = build_profile(table_of(*rows_of(np.random.default_rng(99), 6000)), model, {"source": "newer"})
    moment = time.time_ns() // 1000 + 14 * US
    with detector(embedded, prefix, profiles, "worker"), detector(embedded, prefix, profiles, "evaluator"):
        client = producer(embedded)
        for key, value in activation.records(newer, moment):
            client.send(Topics(prefix).profiles, key=key, value=value, partition=0)
        client.close()
        seq = 0
        while time.time_ns() // 1000 < moment + 14 * US:
            made = burst(exchange_record, rng, 60, seq + 1, 0.0)
            send(embedded, Topics(prefix).payloads, made)
            seq += len(made)
            time.sleep(0.5)
        until(lambda: newer.digest in {v["profile"] for v in verdicts(embedded, prefix).values()}, 60)
        wait_for_rows(embedded, prefix, seq * ROWS)
    said = sorted(verdicts(embedded, prefix).values(), key=lambda verdict: str(verdict["slots"]))
    digests = [verdict["profile"] for verdict in said]
    change = digests.index(newer.digest)
    assert set(digests[:change]) == {profile.digest}
    assert said[change]["previousprofile"] == profile.digest
    assert said[change]["slots"][0] >= -(-moment // US)  # type: ignore[index]
    assert said[change - 1]["followingprofile"] == newer.digest
    assert said[change - 1]["slots"][1] == -(-moment // US) - 1  # type: ignore[index]
    assert accepted_rows(embedded, prefix) == seq * ROWS
