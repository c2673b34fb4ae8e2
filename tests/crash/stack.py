"""What is broken: Apache Kafka and two detector groups, each of two workers and two evaluators, restarted on death."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import risk_model
from conftest import START, wait_for_kafka
from kafka import TopicPartition

from detectors.profile import build_profile
from detectors.profile_file import write_profile
from servelens.contract.schema import parse_model
from servelens.contract.topics import Topics, group_topics, shared_topics
from servelens.io import topics
from servelens.io.embedded import free_port
from servelens.io.kafka import admin, consumer
from servelens.io.kafka_settings import KafkaSettings
from servelens.io.processes import Child

ROOT = Path(__file__).parents[2]
PREFIX, PARTITIONS = "proof", 4
SLOTS = {"a": 1, "b": 2}  # seconds, by group
JAVA = {"JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -Xshare:auto"}
# Without a quick session a broker that was killed is not let in again for nine seconds.
PROPERTIES = "broker.session.timeout.ms=1000\nbroker.heartbeat.interval.ms=200\nlog.retention.check.interval.ms=1000\n"


class Stack:
    """`start` it, `stop` it; in between processes may be killed, stopped and added."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = (str(free_port()), str(free_port()))
        self.settings = KafkaSettings(f"127.0.0.1:{self.ports[0]}", bootstrap_timeout_ms=60_000)
        self.topics = Topics(PREFIX)
        self.children: dict[str, Child] = {}
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def start(self) -> None:
        (self.folder / "more.properties").write_text(PROPERTIES)
        self._profiles()
        command = [str(START), *self.ports, str(self.folder / "kafka"), str(self.folder / "more.properties")]
        self._add("kafka", command, {**os.environ, **JAVA})
        self.wait_broker()
        specs = [*shared_topics(PREFIX, PARTITIONS)]
        specs += [spec for group in SLOTS for spec in group_topics(PREFIX, PARTITIONS, group)]
        topics.create(self.settings, specs)
        for group in SLOTS:
            for role in ("worker", "evaluator"):
                for number in (1, 2):
                    self.add_detector(group, role, number)
        self._keeper.start()

    def _profiles(self) -> None:
        folder = self.folder / "profiles"
        folder.mkdir()
        rows = risk_model.table_of(*risk_model.rows_of(np.random.default_rng(7), 8000))
        for name in ("risk", "churn"):
            text = risk_model.MODEL.replace("inferenceservice: risk", f"inferenceservice: {name}")
            write_profile(build_profile(rows, parse_model(text), {"of": name}), folder / f"{name}.profile")

    def add_detector(self, group: str, role: str, number: int) -> None:
        command = [
            sys.executable, "-m", "servelens.cli", "detector", "--role", role, "--group", group,
            "--kafka", self.settings.bootstrap, "--topic-prefix", PREFIX, "--profiles", str(self.folder / "profiles"),
            "--listen", "127.0.0.1:0", "--slot", f"{SLOTS[group]}s", "--lateness", "4s", "--lease", "3s",
            "--silence", "30s", "--shortest-window", "4s", "--heartbeat", "0s",
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._add(f"{group}-{role}-{number}", command, environment)

    def _add(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        child = Child(name, command, environment, output=self.folder / f"{name}.log")
        child.start(time.monotonic())
        with self._lock:
            self.children[name] = child

    def remove(self, name: str) -> None:
        """A process leaves for good, in good order."""
        with self._lock:
            child = self.children.pop(name)
        child.stop(15.0)

    def _keep(self) -> None:
        while not self._ended.wait(0.1):
            with self._lock:
                for child in self.children.values():
                    child.keep(time.monotonic())

    def wait_broker(self) -> None:
        process = self.children["kafka"].process
        assert process is not None
        wait_for_kafka(self.settings.bootstrap, process, 60)

    def signal(self, name: str, number: int) -> None:
        pid = self.children[name].pid
        if pid is not None:
            os.kill(pid, number)

    def restart_broker(self, hard: bool) -> None:
        """The supervisor starts it again; its log is on disk."""
        process = self.children["kafka"].process
        assert process is not None
        process.send_signal(signal.SIGKILL if hard else signal.SIGTERM)
        process.wait(60)
        while self.children["kafka"].process is process or self.children["kafka"].pid is None:
            time.sleep(0.1)
        self.wait_broker()

    def delete_records(self, partition: int, before: int) -> None:
        """What retention does: the log of payloads begins there."""
        client = admin(self.settings)
        client.delete_records({TopicPartition(self.topics.payloads, partition): before})
        client.close()

    def ends(self, topic: str) -> dict[int, int]:
        client = consumer(self.settings)
        places = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        found = {where.partition: int(end) for where, end in client.end_offsets(places).items()}
        client.close()
        return found

    def stop(self) -> None:
        self._ended.set()
        if self._keeper.is_alive():
            self._keeper.join()
        for name in sorted(self.children, key=lambda name: name == "kafka"):
            self.signal(name, signal.SIGCONT)
            self.children[name].stop(5.0)
