"""A real broker whose process can be stopped, killed and started again: Apache Kafka, else the embedded one.

Apart from `contestants`: one serves every logger of a run.
"""

import shutil
import signal
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError

from servelens.contract.errors import BrokerError
from servelens.io import embedded
from servelens.io.kafka import admin, consumer
from servelens.io.kafka_settings import KafkaSettings

START = Path(__file__).parents[3] / "deploy" / "kafka" / "start"
START_SECONDS = 120.0


class Broker:
    """`name`, `address`, and its life."""

    def __init__(self, command: list[str], name: str, port: int, folder: Path) -> None:
        self.name, self.address, self.settings = name, f"127.0.0.1:{port}", KafkaSettings(f"127.0.0.1:{port}")
        self._command, self._log = command, folder / "broker.log"
        self.keeps = name == "Apache Kafka"  # its records outlive its process
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(OSError, KafkaError, BrokerError):
                host, _, port = self.address.partition(":")
                socket.create_connection((host, int(port)), 1).close()
                admin(self.settings).close()
                return
            time.sleep(0.2)
        raise TimeoutError(f"{self.name} did not answer; see {self._log}")

    def freeze(self) -> None:
        """Stopped, as a machine that hangs: connections stand, and nobody answers."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on from there."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Gone at once: connections are refused until `start`."""
        self.process.kill()
        self.process.wait()

    def forget(self, topic: str) -> None:
        """Delete a topic, so that a long run does not fill the disk."""
        with suppress(KafkaError, BrokerError), closing(admin(self.settings)) as client:
            client.delete_topics([topic])

    def rows(self, topic: str) -> "Rows":
        """What the topic holds: every record is looked at."""
        found = Rows()
        with closing(consumer(self.settings, fetch_max_bytes=16 << 20, max_poll_records=5000)) as client:
            parts = [TopicPartition(topic, number) for number in sorted(client.partitions_for_topic(topic))]
            client.assign(parts)
            client.seek_to_beginning(*parts)
            # By the fetch's high watermark: the embedded broker's end offsets lag behind.
            while any(client.position(part) != client.highwater(part) for part in parts):
                for records in client.poll(timeout_ms=500).values():
                    for record in records:
                        found.add(record)
        return found


class Rows:
    """Records of a payload topic, and the distinct exchanges among them."""

    def __init__(self) -> None:
        self.records = 0
        self._seen: dict[bytes, set[int]] = defaultdict(set)

    def add(self, record: Any) -> None:
        """One record; accounting events are no exchanges."""
        headers = dict(record.headers)
        if headers["ce_type"].endswith(b"exchange.v1"):
            self.records += 1
            self._seen[headers["ce_tapid"]].add(int(headers["ce_seq"]))

    @property
    def exchanges(self) -> int:
        """Distinct ones."""
        return sum(map(len, self._seen.values()))


@contextmanager
def broker(folder: Path) -> Iterator[Broker]:
    """Apache Kafka where Java and Maven (or its jars) are, else the embedded broker."""
    folder.mkdir()
    port = embedded.free_port()
    jars = (START.parent / "target" / "libs").is_dir()
    if shutil.which("java") and (jars or shutil.which("mvn")):
        command = [str(START), str(port), str(embedded.free_port()), str(folder)]
        made = Broker(command, "Apache Kafka", port, folder)
    else:
        made = Broker(embedded.command("127.0.0.1", port), "embedded broker", port, folder)
    made.start()
    try:
        yield made
    finally:
        made.kill()
