"""Where Kafka is and how to speak to it: the settings alone, without the client's library.

Apart from `kafka`, so that a parent that only hands them on does not carry the client's fifteen megabytes.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from servelens.contract.errors import ConfigError

PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")


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
            from servelens.io.kafka_token import TokenFile  # the client's library: only where one is made

            return {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": TokenFile(self.sasl_token_file)}
        if not self.sasl_username or self.sasl_password_file is None:
            raise ConfigError("--kafka-sasl-username", "or its password file is missing", "Give both with SASL.")
        return {
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": self.sasl_password_file.read_text().strip(),
        }


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
