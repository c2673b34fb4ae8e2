"""A SASL/OAUTHBEARER token from a file, as kafka-python asks for it. Made by `kafka_settings`, when a client is."""

from pathlib import Path

from kafka.net.sasl.oauth import AbstractTokenProvider


class TokenFile(AbstractTokenProvider):  # type: ignore[misc]  # the library has no types
    """The token of a file, read at every connection: Kubernetes renews a projected ServiceAccount token in place."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def token(self) -> str:
        """The token as it is now."""
        return self._path.read_text().strip()
