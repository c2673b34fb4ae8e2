"""What `servelens explainer` was told: KServe's own flags for a custom explainer, and ours."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from servelens.contract.errors import ConfigError

PROTOCOLS: Final = ("v1", "v2")
_TRUTH: Final = {"true": True, "false": False, "1": True, "0": False}


@dataclass(frozen=True, slots=True)
class ExplainerSettings:
    """`workers` bounds the requests explained at once (KServe passes containerConcurrency); times in seconds."""

    model_name: str
    predictor_host: str
    http_port: int = 8080
    workers: int = 8
    predictor_protocol: str = "v1"
    predictor_use_ssl: str = "false"
    predictor_timeout: float = 60.0
    artifacts: Path = Path("/mnt/models")
    synthetic_key: Path | None = None
    predictor_token_file: Path | None = None
    caller_token_file: Path | None = None
    forward_authorization: bool = False
    deadline: float = 10.0
    seed: int = 0
    host: str = "0.0.0.0"

    def __post_init__(self) -> None:
        if self.predictor_protocol not in PROTOCOLS:
            problem = f"{self.predictor_protocol!r} is not known"
            raise ConfigError("--predictor_protocol", problem, f"Write {' or '.join(PROTOCOLS)}.")
        if self.predictor_use_ssl.lower() not in _TRUTH:
            raise ConfigError("--predictor_use_ssl", f"{self.predictor_use_ssl!r} is no truth value", "true or false.")
        if self.workers < 1:
            raise ConfigError("--workers", f"{self.workers} explains nothing", "Give 1 or more.")
        if self.seed < 0:
            raise ConfigError("--seed", f"{self.seed} is negative", "Give 0 or more.")
        for flag, seconds in (
            ("--deadline", self.deadline),
            ("--predictor_request_timeout_seconds", self.predictor_timeout),
        ):
            if seconds <= 0:
                raise ConfigError(flag, f"{seconds:g} s leaves no time", "Give more than 0.")
        if not self.predictor_host or "/" in self.predictor_host:
            raise ConfigError("--predictor_host", f"{self.predictor_host!r} is no host", "Write HOST or HOST:PORT.")

    @property
    def predictor_url(self) -> str:
        """Scheme, host and port; port 80, or 443 with TLS, unless given."""
        scheme = "https" if _TRUTH[self.predictor_use_ssl.lower()] else "http"
        return f"{scheme}://{self.predictor_host}"
