"""What the benchmarks work on: wide tables, one-row events, a broker with them, a group that was away for long."""

import gc
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from brokers import Broker
from kafka import TopicPartition
from prometheus_client import CollectorRegistry

from detectors import fence, snapshot
from detectors.book import Book
from detectors.evaluation import Evaluation, Group
from detectors.evaluator import Evaluator
from detectors.fence import Fold
from detectors.intake import Intake
from detectors.ownership import Batch, Ownership
from detectors.pane import Pane
from detectors.profile import Profile, build_profile
from detectors.profile_file import write_profile
from detectors.service import COLLECT
from detectors.settings import DetectorSettings
from servelens.contract import records
from servelens.contract.events import Exchange, Half, Record
from servelens.contract.identity import ModelIdentity, new_exchange_id
from servelens.contract.metrics import Instruments
from servelens.contract.schema import Feature, ModelSchema, Outputs
from servelens.contract.table import Column, Table
from servelens.contract.topics import Topics, TopicSpec, group_topics, shared_topics
from servelens.io import topics
from servelens.io.kafka import consumer, producer

CHUNK = 50  # columns
LEVELS = np.array([f"level {at}" for at in range(12)], object)


def _table(rng: np.random.Generator, rows: int, columns: int, first: int) -> Table:
    """Seven numeric columns of ten, the others of twelve levels."""
    made: dict[str, Column] = {}
    for at in range(first, first + columns):
        made[f"x{at}"] = rng.normal(size=rows) if at % 10 < 7 else LEVELS[rng.integers(0, 12, rows)]
    return Table.of(made)


def wide(rows: int, columns: int, chunk: int, identity: str = "wide") -> tuple[Table, Table, Profile]:
    """Reference and window of as many rows, and the reference's profile."""
    rng, first = np.random.default_rng([rows, chunk]), chunk * columns
    reference, current = (_table(rng, rows, columns, first) for _ in range(2))
    features = tuple(
        Feature(f"x{at}", "numeric" if at % 10 < 7 else "categorical") for at in range(first, first + columns)
    )
    model = ModelSchema(ModelIdentity("bench", identity, "predictor", identity), features, Outputs("values"))
    return reference, current, build_profile(reference, model, {"source": "bench"})


NAMES = tuple(f"x{at}" for at in range(20))


def events(form: str, count: int) -> tuple[Profile, list[Record]]:
    """One-row exchanges of twenty numeric columns in one of three forms, and a profile of them."""
    rng = np.random.default_rng(0)
    model = ModelSchema(
        ModelIdentity("bench", "one", "predictor", "one"),
        tuple(Feature(name, "numeric") for name in NAMES),
        Outputs("values"),
    )
    reference = {name: rng.normal(size=5000) for name in (*NAMES, "prediction")}
    made = [_event(form, model.identity, rng.normal(size=20).tolist(), seq) for seq in range(1, count + 1)]
    return build_profile(Table.of(reference), model, {}), made


def _event(form: str, identity: ModelIdentity, row: list[float], seq: int) -> Record:
    answer: dict[str, Any] = {
        "model_name": "one", "outputs": [{"name": "prediction", "shape": [1], "datatype": "FP64", "data": [0.5]}],
    }  # fmt: skip
    path = "/v2/models/one/infer"
    if form == "v1":
        asked: dict[str, Any] = {"instances": [row]}
        answer, path = {"predictions": [0.5]}, "/v1/models/one:predict"
    elif form == "v2 matrix":
        asked = {"inputs": [{"name": "x", "shape": [1, 20], "datatype": "FP64", "data": row}]}
    else:
        pairs = zip(NAMES, row, strict=True)
        asked = {"inputs": [{"name": n, "shape": [1], "datatype": "FP64", "data": [v]} for n, v in pairs]}
    bodies = [orjson.dumps(body) for body in (asked, answer)]
    halves = [Half(body, len(body), content_type="application/json") for body in bodies]
    exchange = Exchange(
        new_exchange_id(), 1_800_000_000_000_000 + seq * 1000, identity, method="POST", path=path, status=200,
        protocol="http/1.1", duration_us=1500, tapid="tap", request=halves[0], response=halves[1],
    )  # fmt: skip
    return records.encode(exchange, "exchange", seq)[0]


def send(where: Broker, made: Sequence[Record], count: int) -> str:
    """A topic of one partition with so many records, the made ones over and over."""
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    topics.create(where.settings, [TopicSpec(topic, 1)])
    client = producer(where.settings, batch_size=262_144)
    for number in range(count):
        record = made[number % len(made)]
        client.send(topic, key=record.key, value=record.value, headers=list(record.headers), partition=0)
    client.flush()
    client.close()
    return topic


def intake_of(profile: Profile) -> Callable[[], Intake]:
    return lambda: Intake(Book([profile]), 10, 86_400, {}, 0)


def consume(where: Broker, topic: str, intake: Callable[[], Intake] | None) -> float:
    """Events a CPU-second, of this thread's process: taken off the broker, and counted where there is an intake."""
    client = consumer(where.settings, max_poll_records=2000)
    place = TopicPartition(topic, 0)
    client.assign([place])
    client.seek(place, 0)
    end, seen, counting = client.end_offsets([place])[place], 0, intake() if intake else None
    while client.position(place) == 0 and not client.poll(timeout_ms=200, max_records=1):
        pass
    client.seek(place, 0)
    began = time.process_time()
    while client.position(place) < end:
        rows = client.poll(timeout_ms=500).get(place, [])
        seen += len(rows)
        if counting is not None:
            for record in rows:
                counting._seqs.clear()  # the same events again and again are no repeats here
                counting.take(record)
            counting.close(0)
    spent = time.process_time() - began
    client.close()
    return seen / spent


def restart(where: Broker, folder: Path, panes: int) -> tuple[float, float, int]:
    """Seconds of an evaluator and of a worker (one of four partitions) to the logs' ends, and the bytes sent."""
    prefix, group, partitions = f"r{uuid.uuid4().hex[:8]}", "g", 4
    topics.create(where.settings, (*shared_topics(prefix, partitions), *group_topics(prefix, partitions, group)))
    _, current, profile = wide(120, 20, 0, "restart")
    (folder / "profiles").mkdir()
    write_profile(profile, folder / "profiles" / "m.profile")
    names = Topics(prefix)
    size = _fill(where, names.panes(group), profile, current, panes, partitions)
    _snapshot(where, names.state(group), profile, group, partitions)
    settings = DetectorSettings(where.settings, prefix, group, folder / "profiles", "")
    evaluator = Evaluator(settings, Book([profile]), Instruments(CollectorRegistry()))
    gc.set_threshold(*COLLECT)  # as the service does
    running = threading.Thread(target=evaluator.run, daemon=True)
    began = time.perf_counter()
    running.start()
    while not evaluator.ready:
        time.sleep(0.005)
    took = time.perf_counter() - began
    evaluator.stop.set()
    running.join()
    began = time.perf_counter()
    _follow(where, names, group)
    return took, time.perf_counter() - began, size


def _fill(where: Broker, topic: str, profile: Profile, current: Table, panes: int, partitions: int) -> int:
    """Batches of one pane each, ten rows a second in every partition."""
    client, size = producer(where.settings, batch_size=524_288, linger_ms=20), 0
    owners = [Ownership(Fold()) for _ in range(partitions)]
    for partition, owner in enumerate(owners):
        claim = owner.claim(f"e{partition}", "w", 1, {"payloads": "t"}, slot_seconds=10)
        client.send(topic, value=fence.encode(claim), partition=partition)
        owner.see(0, claim)
    for number in range(panes):
        partition, slot = number % partitions, 180_000_000 + number // partitions
        pane = Pane.of(profile, current, slot=slot, exchanges=current.rows)
        owner = owners[partition]
        hi = owner.sent.get("payloads", 0) + current.rows
        for entry in owner.place(Batch(hi, [pane.to_mapping()], current.rows, slot)):
            value = fence.encode(entry)
            size += len(value)
            client.send(topic, value=value, partition=partition)
    client.flush()
    client.close()
    return size


def _snapshot(where: Broker, topic: str, profile: Profile, group: str, partitions: int) -> None:
    settings = DetectorSettings(where.settings, "", group, None, "")
    about = Group(group, settings.slot, settings.statistics, settings.closing)
    state = Evaluation(Book([profile]), about, partitions)
    client = producer(where.settings)
    for key, value in snapshot.records(state.to_mapping(), "bench", 1, state.reach):
        client.send(topic, key=key, value=value, partition=0).get(30)
    client.close()


def _follow(where: Broker, names: Topics, group: str) -> None:
    """What a worker does when a partition is assigned to it: the newest snapshot's fold, then the log to its end."""
    fold = snapshot.folds(where.settings, names.state(group)).get(0) or Fold()
    client, place = consumer(where.settings), TopicPartition(names.panes(group), 0)
    client.assign([place])
    client.seek(place, fold.at)
    end = client.end_offsets([place])[place]
    while fold.at < end:
        for record in client.poll(timeout_ms=500).get(place, []):
            fold.apply(record.offset, fence.decode(record.value))
    client.close()
