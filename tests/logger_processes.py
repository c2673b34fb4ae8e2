"""Recorder and shipper as the parent starts them, for tests that kill them; and what then lies on disk and in Kafka."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka import TopicPartition

from logger import segment as segments
from logger.account import Sum
from logger.backlog import Backlog, Entry
from logger.ledger import summarise
from logger.state import State
from servelens.io.kafka import consumer
from servelens.io.kafka_settings import KafkaSettings

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class House:
    """The folders of one logger."""

    root: Path

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    @property
    def accounts(self) -> Path:
        return self.root / "taps"

    @property
    def socket(self) -> Path:
        return self.root / "c.sock"

    def account(self) -> Sum:
        return summarise(self.spool, self.accounts)

    def rows(self) -> list[Entry]:
        backlog, found, position = Backlog(self.spool), list[Entry](), (0, 0)
        while entries := backlog.read(position, 10_000, 1 << 30):
            found += entries
            position = entries[-1].position
        backlog.close()
        return found

    def state(self) -> State:
        newest = segments.newest_state(self.spool)
        assert newest is not None
        return newest[1]

    def recorder(self, *more: str) -> list[str]:
        return [
            "logger.recorder",
            "--capture-socket", str(self.socket),
            "--accounts", str(self.accounts),
            "--spool", str(self.spool),
            "--namespace", "shop",
            "--inference-service", "iris",
            "--accounting-seconds", "3600",
            *more,
        ]  # fmt: skip

    def shipper(self, kafka: str, prefix: str, *more: str) -> list[str]:
        return ["logger.shipper", "--spool", str(self.spool), "--kafka", kafka, "--topic-prefix", prefix, *more]


def start(module: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", *module], cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE)


def end(process: subprocess.Popen[bytes], kill: bool = False, grace: float = 15.0) -> str:
    """Stop it; its log."""
    (process.kill if kill else process.terminate)()
    _, log = process.communicate(timeout=grace)
    return log.decode()


@contextmanager
def running(module: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = start(module)
    try:
        yield process
    finally:
        if process.poll() is None:
            end(process)
        close_pipes(process)


def close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stderr):
        if pipe is not None:
            pipe.close()


def wait_for(what: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not so within {seconds} s"
        time.sleep(0.02)


def kafka_records(kafka: KafkaSettings, topic: str) -> list[Any]:
    """Every record of every partition. By the fetch's high watermark: the embedded broker's end offsets lag behind."""
    with closing(consumer(kafka)) as client:
        parts = [TopicPartition(topic, number) for number in sorted(client.partitions_for_topic(topic))]
        client.assign(parts)
        client.seek_to_beginning(*parts)
        found: list[Any] = []
        quiet = 0
        while quiet < 3:
            polled = [record for records in client.poll(timeout_ms=300).values() for record in records]
            found += polled
            done = all(client.position(part) == client.highwater(part) for part in parts)
            quiet = 0 if polled else quiet + 1 + 2 * done
        return found
