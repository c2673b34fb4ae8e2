"""Fixtures every folder shares: a real broker for the session, and a topic prefix of its own for each test."""

import uuid
from collections.abc import Iterator

import pytest

from servelens.io.embedded import EmbeddedBroker
from servelens.io.kafka import KafkaSettings


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """HOST:PORT of an embedded broker."""
    with EmbeddedBroker() as running:
        yield running.address


@pytest.fixture
def kafka(broker: str) -> KafkaSettings:
    return KafkaSettings(broker)


@pytest.fixture
def prefix() -> str:
    return "t" + uuid.uuid4().hex[:10]
