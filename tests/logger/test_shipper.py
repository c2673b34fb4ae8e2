"""The shipper against a real broker: killed, refused, kept waiting. What matters is what a reader of the topic gets."""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from kafka.errors import InvalidRecordError, KafkaError
from kafka.future import Future
from logger_processes import House, end, kafka_records, running, start, wait_for
from tap_end import TapEnd, exchange

from logger import capture, cursor
from logger import segment as segments
from logger.intake import Intake
from logger.segment import Row
from logger.shipper import PRODUCER, Shipper, ensure_topics
from logger.shipping import Shipping
from logger.spool import Batch, Spool
from servelens.contract.errors import BrokerError, ConfigError
from servelens.contract.events import Exchange
from servelens.contract.identity import ModelIdentity
from servelens.contract.records import decode
from servelens.contract.topics import Topics, spooled_topics
from servelens.io import kafka as clients
from servelens.io.embedded import EmbeddedBroker
from servelens.io.kafka_settings import KafkaSettings


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def fill(house: House, bodies: Iterable[bytes], **options: Any) -> list[str]:
    """Spool exchanges without a recorder process; their ids."""
    spool = Spool(house.spool, boot=lambda: "boot", **options)
    intake = Intake(ModelIdentity("shop", "iris"))
    sent = [exchange(body=body) for body in bodies]
    first = spool.state.streams.get("tap", 0) + 1
    intake.begin(spool.state)
    for number, one in enumerate(sent, first):
        intake.take("tap", number, capture.encode(one))
        if intake.full or number == first + len(sent) - 1:
            assert spool.commit(intake.batch)
            intake.begin(spool.state)
    spool.close()
    return [one.exchangeid for one in sent]


def headers_of(record: Any) -> dict[str, str]:
    return {name: value.decode() for name, value in record.headers}


def taken(records: list[Any]) -> dict[str, Any]:
    """Exchange id → record, as a reader takes them: per partition and tapid, no seq at or below the last."""
    last: dict[tuple[int, str], int] = {}
    found: dict[str, Any] = {}
    for record in records:
        parts = headers_of(record)
        where, seq = (record.partition, parts["ce_tapid"]), int(parts["ce_seq"])
        if seq <= last.get(where, 0):
            continue
        last[where] = seq
        if "ce_exchangeid" in parts:
            assert parts["ce_exchangeid"] not in found, "taken twice"
            found[parts["ce_exchangeid"]] = record
    return found


def shipped(house: House) -> int:
    found = cursor.load(house.spool)
    return found.shipped if found else 0


class Unlucky:
    """A real producer of which some records fail at the broker, as `fate` says of each (key, value)."""

    def __init__(self, producer: Any, fate: Callable[[bytes, bytes], Exception | None]) -> None:
        self._producer, self._fate = producer, fate

    def send(self, topic: str, value: bytes, key: bytes, headers: Any, timestamp_ms: int | None) -> Any:
        error = self._fate(key, value)
        if error is None:
            return self._producer.send(topic, value, key, headers, timestamp_ms=timestamp_ms)
        return Future().failure(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)


def ship_all(
    house: House, kafka: KafkaSettings, prefix: str, fate: Callable[[bytes, bytes], Exception | None] | None = None,
    **overrides: Any,
) -> list[str]:  # fmt: skip
    """Run a shipper in this process until nothing is left; the reasons of failed deliveries."""
    reasons: list[str] = []
    shipping = Shipping(house.spool, {"": Topics(prefix).payloads})
    stop = threading.Event()

    def make() -> Any:
        producer = clients.producer(kafka, **(PRODUCER | overrides))
        return Unlucky(producer, fate) if fate else producer

    shipper = Shipper(
        shipping, lambda: ensure_topics(kafka, spooled_topics(prefix, 4), create=True), make, reasons.append
    )
    runner = threading.Thread(target=shipper.run, args=(stop,))
    runner.start()
    newest = segments.newest_state(house.spool)
    assert newest is not None
    wait_for(lambda: (found := cursor.load(house.spool)) is not None and found.seq == newest[1].seq, 60)
    stop.set()
    runner.join(20)
    assert not runner.is_alive()
    shipping.close()
    return reasons


def test_every_row_reaches_kafka_in_order_and_the_cursor_tells(house: House, kafka: KafkaSettings, prefix: str) -> None:
    ids = fill(house, [b"x" * 300] * 1500, segment_bytes=1 << 18)
    assert len(segments.indices(house.spool)) == 3
    assert ship_all(house, kafka, prefix) == []
    records = kafka_records(kafka, f"{prefix}.payloads")
    assert sorted(taken(records)) == sorted(ids)
    assert len(records) == 1500
    assert shipped(house) == 1500
    assert house.account().waiting == 0
    found = decode(records[0].headers, records[0].value)
    assert isinstance(found, Exchange)
    assert found.request is not None
    assert found.request.body == b"x" * 300
    assert records[0].timestamp == found.arrived_us // 1000


def test_keys_are_partitioned_as_java_clients_do(house: House, kafka: KafkaSettings, prefix: str) -> None:
    from kafka.partitioner.default import murmur2

    fill(house, [b""] * 40)
    ship_all(house, kafka, prefix)
    for record in kafka_records(kafka, f"{prefix}.payloads"):
        assert record.partition == (murmur2(record.key) & 0x7FFFFFFF) % 4


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_moment_a_reader_takes_every_exchange_once(
    house: House, broker: str, kafka: KafkaSettings, prefix: str, seed: int
) -> None:
    """Recorder, shipper and a tap are killed while exchanges flow; small segments roll and go all the while."""
    chance = random.Random(seed)
    recorder_command = house.recorder("--segment-bytes", "60000", "--accounting-seconds", "0.3")
    shipper_command = house.shipper(broker, prefix)
    recorder, shipper = start(recorder_command), start(shipper_command)
    taps = [TapEnd(house.socket, house.accounts) for _ in range(2)]
    sent: set[str] = set()
    lost: set[str] = set()
    for turn in range(5):
        until = time.monotonic() + chance.uniform(0.8, 1.6)
        while time.monotonic() < until:
            for tap in taps:
                more = [exchange(body=b"x" * chance.randint(0, 400)) for _ in range(chance.randint(0, 12))]
                sent |= {one.exchangeid for one in more}
                tap.offer(*more)
                tap.pump(0.02)
        if turn % 2 == 0:
            end(shipper, kill=True)
            shipper = start(shipper_command)
        if turn % 2 == 1:
            end(recorder, kill=True)
            recorder = start(recorder_command)
        if turn == 2:
            dying = taps.pop()
            dying.drain()
            dying.offer(*(unlucky := [exchange() for _ in range(3)]))
            lost |= {one.exchangeid for one in unlucky}
            dying.die()
            taps.append(TapEnd(house.socket, house.accounts))
    for tap in taps:
        tap.drain()
        tap.die()
    wait_for(lambda: not list(house.accounts.iterdir()))
    end(recorder)
    wait_for(lambda: house.account().waiting == 0, 60)
    end(shipper)
    account = house.account()
    assert len(sent) > 200
    assert account.adds_up
    assert (account.offered, account.shipped) == (len(sent) + 3, len(sent))
    assert {reason: count for reason, count in account.reasons.items() if count} == {"crash": 3}
    records = kafka_records(kafka, f"{prefix}.payloads")
    assert set(taken(records)) == sent
    places: dict[str, tuple[str, str]] = {}
    for record in records:
        parts = headers_of(record)
        place = parts["ce_tapid"], parts["ce_seq"]
        assert places.setdefault(parts["ce_id"], place) == place, "a duplicate stands under another number"
    assert len(segments.indices(house.spool)) <= 3, "what is shipped is deleted"


def test_a_broker_that_stalls_costs_duplicates_at_most(house: House, prefix: str) -> None:
    ids = fill(house, [b"x" * 2000] * 4000)
    with EmbeddedBroker() as running_broker:
        kafka = KafkaSettings(running_broker.address)
        ensure_topics(kafka, spooled_topics(prefix, 4), create=True)
        assert running_broker.process is not None
        process = running_broker.process

        def stall() -> None:
            for _ in range(3):
                time.sleep(0.7)
                process.send_signal(signal.SIGSTOP)
                time.sleep(1.0)
                process.send_signal(signal.SIGCONT)

        staller = threading.Thread(target=stall)
        staller.start()
        reasons = ship_all(
            house, kafka, prefix, batch_size=8192, request_timeout_ms=250, delivery_timeout_ms=500, linger_ms=1
        )
        staller.join()
        assert set(taken(kafka_records(kafka, f"{prefix}.payloads"))) == set(ids)
    assert reasons
    assert shipped(house) == 4000


def test_what_the_client_finds_too_large_goes_as_a_marker_in_its_place(
    house: House, kafka: KafkaSettings, prefix: str
) -> None:
    ids = fill(house, [b"x" * 100, b"x" * 9000, b"x" * 100])
    assert ship_all(house, kafka, prefix, max_request_size=8000, batch_size=4096) == []
    found = taken(kafka_records(kafka, f"{prefix}.payloads"))
    assert set(found) == set(ids)
    marker = decode(found[ids[1]].headers, found[ids[1]].value)
    assert isinstance(marker, Exchange)
    assert marker.request is not None
    assert (marker.request.body, marker.request.truncated, marker.request.size) == (b"", True, 9000)
    assert shipped(house) == 3


def test_what_the_broker_refuses_goes_as_a_marker_and_holds_up_nobody(
    house: House, kafka: KafkaSettings, prefix: str
) -> None:
    ids = fill(house, [b"good"] * 40 + [b"poison"] + [b"good"] * 40)

    def fate(_: bytes, value: bytes) -> Exception | None:
        return InvalidRecordError("refused") if b"poison" in value else None

    reasons = ship_all(house, kafka, prefix, fate)
    assert set(reasons) == {"refused"}
    assert len(reasons) == 2, "once among others, once alone"
    found = taken(kafka_records(kafka, f"{prefix}.payloads"))
    assert set(found) == set(ids)
    marker = decode(found[ids[40]].headers, found[ids[40]].value)
    assert isinstance(marker, Exchange)
    assert marker.request is not None
    assert (marker.request.body, marker.request.truncated) == (b"", True)
    assert shipped(house) == 81


def test_innocents_of_a_refused_batch_are_delivered_whole(house: House, kafka: KafkaSettings, prefix: str) -> None:
    ids = fill(house, [b"good"] * 5 + [b"poison"] + [b"good"] * 5)
    tries: Counter[bytes] = Counter()

    def fate(key: bytes, value: bytes) -> Exception | None:
        tries[key] += 1
        if b"poison" in value:
            return InvalidRecordError("refused")
        batch_mate: Exception = KafkaError("its batch was refused")
        return batch_mate if tries[key] == 1 else None

    ship_all(house, kafka, prefix, fate)
    found = taken(kafka_records(kafka, f"{prefix}.payloads"))
    assert set(found) == set(ids)
    truncated = [key for key in ids if "ce_requesttruncated" in headers_of(found[key])]
    assert truncated == [ids[5]]


def test_what_is_refused_even_as_a_marker_is_given_up_and_counted(
    house: House, kafka: KafkaSettings, prefix: str
) -> None:
    ids = fill(house, [b"good"] * 6)

    def fate(key: bytes, _: bytes) -> Exception | None:
        return InvalidRecordError("refused") if key.decode() == ids[2] else None

    assert len(ship_all(house, kafka, prefix, fate)) == 3
    assert set(taken(kafka_records(kafka, f"{prefix}.payloads"))) == set(ids) - {ids[2]}
    found = cursor.load(house.spool)
    assert found is not None
    assert (found.shipped, found.refused) == (5, 1)
    newest = segments.newest_state(house.spool)
    assert newest is not None
    assert house.account().reasons["refused"] == 1


def test_a_row_whose_headers_are_damaged_is_given_up_and_the_rest_goes(
    house: House, kafka: KafkaSettings, prefix: str
) -> None:
    ids = fill(house, [b"a", b"b"])
    spool = Spool(house.spool, boot=lambda: "boot")
    broken = Batch()
    broken.add(Row(3, 1, b"k", b"not json", b"v", 1))
    spool.commit(broken)
    spool.close()
    ids += fill(house, [b"c"])
    ship_all(house, kafka, prefix)
    assert set(taken(kafka_records(kafka, f"{prefix}.payloads"))) == set(ids)
    found = cursor.load(house.spool)
    assert found is not None
    assert (found.seq, found.shipped, found.refused) == (4, 3, 1)


def test_an_error_that_is_no_refusal_is_tried_again_as_it_is(house: House, kafka: KafkaSettings, prefix: str) -> None:
    ids = fill(house, [b"x"] * 30)
    failures = iter([OSError("line cut"), None, RuntimeError("unheard of")])

    def fate(key: bytes, _: bytes) -> Exception | None:
        return next(failures, None) if key.decode() == ids[7] else None

    assert len(ship_all(house, kafka, prefix, fate)) == 1
    found = taken(kafka_records(kafka, f"{prefix}.payloads"))
    assert set(found) == set(ids)
    assert not any("ce_requesttruncated" in headers_of(record) for record in found.values())


def test_it_waits_for_a_broker_that_comes_late(house: House, prefix: str) -> None:
    ids = fill(house, [b"x"] * 20)
    late = EmbeddedBroker()
    with running(house.shipper(late.address, prefix)) as shipper:
        time.sleep(5.0)
        assert shipper.poll() is None
        assert shipped(house) == 0
        with late:
            wait_for(lambda: shipped(house) == 20, 30)
            log = end(shipper)
            assert set(taken(kafka_records(KafkaSettings(late.address), f"{prefix}.payloads"))) == set(ids)
    assert '"reason":"broker_away"' in log


def test_it_holds_until_the_topic_is_there_where_it_may_not_create_it(
    house: House, broker: str, kafka: KafkaSettings, prefix: str
) -> None:
    fill(house, [b"x"] * 5)
    with running(house.shipper(broker, prefix, "--no-create-topics")) as shipper:
        time.sleep(2.0)
        assert shipper.poll() is None
        assert shipped(house) == 0
        ensure_topics(kafka, spooled_topics(prefix, 4), create=True)
        wait_for(lambda: shipped(house) == 5)
        assert "is missing" in end(shipper)


def test_a_topic_of_another_partition_count_does_not_fit(kafka: KafkaSettings, prefix: str) -> None:
    with pytest.raises(BrokerError, match="is missing"):
        ensure_topics(kafka, spooled_topics(prefix, 4), create=False)
    ensure_topics(kafka, spooled_topics(prefix, 4), create=True)
    ensure_topics(kafka, spooled_topics(prefix, 4), create=False)
    with pytest.raises(ConfigError, match="--partitions 4"):
        ensure_topics(kafka, spooled_topics(prefix, 8), create=True)


def test_at_its_end_it_ships_what_is_there_and_says_what_remains(
    house: House, broker: str, kafka: KafkaSettings, prefix: str
) -> None:
    ensure_topics(kafka, spooled_topics(prefix, 4), create=True)
    with running(house.shipper(broker, prefix)) as shipper:
        fill(house, [b"x"] * 10)
        wait_for(lambda: shipped(house) == 10)
        shipper.send_signal(signal.SIGSTOP)
        fill(house, [b"y" * 500] * 2000)
        shipper.terminate()
        shipper.send_signal(signal.SIGCONT)
        log = end(shipper, grace=20)
        assert shipper.returncode == 0
    assert shipped(house) == 2010
    assert '"remaining":0' in log


def test_at_its_end_without_kafka_it_leaves_in_time_and_says_what_remains(house: House, prefix: str) -> None:
    fill(house, [b"x"] * 7)
    with running(house.shipper("127.0.0.1:9", prefix, "--grace-seconds", "1")) as shipper:
        time.sleep(1.5)
        started = time.monotonic()
        log = end(shipper)
        assert time.monotonic() - started < 6
        assert shipper.returncode == 0
    assert '"remaining":7' in log


def test_one_shipper_at_a_time(house: House, broker: str, prefix: str) -> None:
    fill(house, [b"x"] * 5)
    with running(house.shipper(broker, prefix)) as first:
        wait_for(lambda: shipped(house) == 5)
        with running(house.shipper(broker, prefix)) as second:
            fill(house, [b"x"] * 5)
            wait_for(lambda: shipped(house) == 10)
            time.sleep(0.5)
            assert "shipping" in end(first)
            fill(house, [b"x"] * 5)
            wait_for(lambda: shipped(house) == 15)
            end(second)


def test_a_setting_that_is_wrong_is_told_and_not_retried(house: House, prefix: str) -> None:
    with running(house.shipper("127.0.0.1:9", prefix, "--kafka-security", "SASL_SSL")) as shipper:
        assert shipper.wait(20) == 2
        assert shipper.stderr is not None
        assert b"--kafka-sasl-mechanism" in shipper.stderr.read()
