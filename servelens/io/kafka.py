"""The Kafka clients, made one way: safe defaults, TLS and SASL from files, our error tree instead of the library's.

The only module that constructs kafka-python objects; services keep the loops, this keeps the settings.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError
from kafka.net.sasl.oauth import AbstractTokenProvider

from servelens.contract.errors import BrokerError, ConfigError

PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
# Half of it is what a group join takes on the embedded broker, and six seconds is the least Kafka allows by default.
SESSION_TIMEOUT_MS: Final = 6000


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Where the brokers are and how to speak to them. Secrets are read from files, when a client is made."""

    bootstrap: str
    security_protocol: str = "PLAINTEXT"
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password_file: Path | None = None
    sasl_token_file: Path | None = None
    bootstrap_timeout_ms: int = 15_000

    def options(self) -> dict[str, Any]:
        """The settings as kafka-python spells them; ConfigError names the flag at fault."""
        if self.security_protocol not in PROTOCOLS:
            raise ConfigError("--kafka-security", f"{self.security_protocol!r} is none", f"Use one of {PROTOCOLS}.")
        options: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap.split(","),
            "security_protocol": self.security_protocol,
            "bootstrap_timeout_ms": self.bootstrap_timeout_ms,
        }
        for name, path in (
            ("ssl_cafile", self.ca_file),
            ("ssl_certfile", self.cert_file),
            ("ssl_keyfile", self.key_file),
        ):
            if path is not None:
                options[name] = str(path)
        if self.security_protocol.startswith("SASL"):
            options |= self._sasl()
        return options

    def _sasl(self) -> dict[str, Any]:
        if self.sasl_mechanism not in MECHANISMS:
            raise ConfigError("--kafka-sasl-mechanism", f"{self.sasl_mechanism!r} is none", f"Use one of {MECHANISMS}.")
        if self.sasl_mechanism == "OAUTHBEARER":
            if self.sasl_token_file is None:
                raise ConfigError("--kafka-sasl-token-file", "is missing", "Give the file that holds the token.")
            return {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": TokenFile(self.sasl_token_file)}
        if not self.sasl_username or self.sasl_password_file is None:
            raise ConfigError("--kafka-sasl-username", "or its password file is missing", "Give both with SASL.")
        return {
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": self.sasl_password_file.read_text().strip(),
        }


class TokenFile(AbstractTokenProvider):  # type: ignore[misc]  # the library has no types
    """The token of a file, read at every connection: Kubernetes renews a projected ServiceAccount token in place."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def token(self) -> str:
        """The token as it is now."""
        return self._path.read_text().strip()


# Flag → field of KafkaSettings: the same flags on the command line and from a parent to its children.
FLAGS: Final[Mapping[str, str]] = {
    "--kafka": "bootstrap",
    "--kafka-security": "security_protocol",
    "--kafka-ca-file": "ca_file",
    "--kafka-cert-file": "cert_file",
    "--kafka-key-file": "key_file",
    "--kafka-sasl-mechanism": "sasl_mechanism",
    "--kafka-sasl-username": "sasl_username",
    "--kafka-sasl-password-file": "sasl_password_file",
    "--kafka-sasl-token-file": "sasl_token_file",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Give an internal process's parser the Kafka flags."""
    for flag, name in FLAGS.items():
        parser.add_argument(flag, dest=name, type=Path if name.endswith("_file") else str)


def from_arguments(parsed: Namespace) -> KafkaSettings:
    """The settings of parsed arguments."""
    given = {name: getattr(parsed, name) for name in FLAGS.values()}
    return KafkaSettings(**{name: value for name, value in given.items() if value is not None})


def as_arguments(settings: KafkaSettings) -> list[str]:
    """The arguments that make the same settings in a child."""
    pairs = ((flag, getattr(settings, name)) for flag, name in FLAGS.items())
    return [word for flag, value in pairs if value is not None for word in (flag, str(value))]


def _connected(settings: KafkaSettings, make: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    try:
        return make(**settings.options(), **options)
    except KafkaError as error:
        raise BrokerError(f"no Kafka at {settings.bootstrap}: {type(error).__name__}; check --kafka") from error


def producer(settings: KafkaSettings, **overrides: Any) -> KafkaProducer:
    """An idempotent producer with acks=all; keys are partitioned by murmur2, as Java clients do."""
    return _connected(settings, KafkaProducer, {"compression_type": "lz4", "linger_ms": 5, **overrides})


def consumer(settings: KafkaSettings, **overrides: Any) -> KafkaConsumer:
    """A consumer that commits nothing by itself and starts at the log's beginning."""
    defaults = {"enable_auto_commit": False, "auto_offset_reset": "earliest", "fetch_max_wait_ms": 100}
    return _connected(settings, KafkaConsumer, {**defaults, **overrides})


def group_consumer(settings: KafkaSettings, group: str, topic: str, **overrides: Any) -> KafkaConsumer:
    """A consumer to subscribe to `topic` in a group, whose session is so short that the dead are replaced in seconds.

    It knows the topic's partitions before it joins: a group leader that does not yet assigns nothing to anyone, and
    with kafka-python 3.0 nothing makes it look again (seen one time in fifteen on a busy machine).
    """
    defaults = {"group_id": group, "session_timeout_ms": SESSION_TIMEOUT_MS, "heartbeat_interval_ms": 1000}
    client = consumer(settings, **{**defaults, **overrides})
    partition_count(client, topic)
    return client


def admin(settings: KafkaSettings) -> KafkaAdminClient:
    """An admin client; close it."""
    return _connected(settings, KafkaAdminClient, {})


def partition_count(client: KafkaConsumer, topic: str) -> int:
    """How many partitions a topic has, 0 if there is no such topic."""
    return len(client.partitions_for_topic(topic) or ())


def topic_ids(settings: KafkaSettings, topics: Iterable[str]) -> dict[str, str]:
    """Each topic's id, as text: another id under the same name is another topic."""
    with closing(admin(settings)) as client:
        return {row["name"]: str(row.get("topic_id", "")) for row in client.describe_topics(list(topics))}


def read_all(settings: KafkaSettings, topic: str, partition: int, start: int | None = None) -> list[Any]:
    """Every record of one partition from `start` (default: its beginning) to its end as of now."""
    where = TopicPartition(topic, partition)
    with closing(consumer(settings)) as client:
        client.assign([where])
        begin = client.beginning_offsets([where])[where]
        if client.end_offsets([where])[where] <= begin:
            return []
        client.seek(where, begin if start is None else start)
        rows: list[Any] = []
        # The embedded broker's latest offset is the last batch's first + 1; what a fetch says is right on any broker.
        while (end := client.highwater(where)) is None or client.position(where) < end:
            rows += client.poll(timeout_ms=500).get(where, [])
        return rows


def end_of(settings: KafkaSettings, topic: str, partition: int) -> int:
    """The offset after the last record, as a fetch tells it."""
    where = TopicPartition(topic, partition)
    with closing(consumer(settings)) as client:
        client.assign([where])
        begin, end = client.beginning_offsets([where])[where], client.end_offsets([where])[where]
        if end <= begin:
            return int(end)
        client.seek(where, end - 1)
        while client.highwater(where) is None:
            client.poll(timeout_ms=500)
        return max(int(end), int(client.highwater(where)))
