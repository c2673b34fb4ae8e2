"""What `servelens logger` was told, checked; `arguments` hands it on to the child processes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

from logger.budget import DEFAULT_LIMIT
from logger.http1 import DEFAULT_CAP
from logger.upstream import PATH_LIMIT, Upstream
from servelens.contract.errors import ConfigError
from servelens.contract.events import LogMode
from servelens.io.kafka_settings import KafkaSettings

ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    "all": ("tap", "recorder", "shipper"),
    "tap": ("tap",),
    "recorder": ("recorder", "shipper"),
}
MOST_WORKERS: Final = 64
MAX_CONNECTIONS: Final = 4096
IDLE_SECONDS: Final = 600.0
_LANE_SUFFIX: Final = len("-63")


@dataclass(frozen=True, slots=True)
class LoggerSettings:
    """Sizes in bytes, times in seconds. `kafka` None only where no shipper runs (role `tap`, log mode `none`)."""

    listen: str
    upstream: str
    admin: str
    spool: Path
    kafka: KafkaSettings | None
    topic_prefix: str
    namespace: str
    inference_service: str
    component: str = "predictor"
    revision: str = ""
    endpoint: str = ""
    log_mode: LogMode = "exchange"
    role: str = "all"
    workers: int = 1
    probe_path: str = ""
    capture_socket: Path | None = None
    synthetic_key: Path | None = None
    rules: Path | None = None
    redaction_key: Path | None = None
    add_request_id: bool = False
    capture_memory: int = DEFAULT_LIMIT
    body_cap: int = DEFAULT_CAP
    on_unparsable: str = "blind"
    max_connections: int = MAX_CONNECTIONS
    idle_seconds: float = IDLE_SECONDS
    spool_bytes: int = 512 << 20
    spool_policy: str = "drop-new"
    accounting_seconds: float = 10.0
    create_topics: bool = True
    partitions: int = 4
    grace_seconds: float = 10.0
    otlp: str = ""
    otlp_headers_file: Path | None = None
    otlp_ca_file: Path | None = None
    trace_ratio: float = 0.01

    def __post_init__(self) -> None:
        for setting, value, allowed in (
            ("--role", self.role, tuple(ROLES)),
            ("--log-mode", self.log_mode, get_args(LogMode)),
            ("--on-unparsable", self.on_unparsable, ("blind", "close")),
            ("--spool-policy", self.spool_policy, ("drop-new", "drop-old")),
        ):
            if value not in allowed:
                raise ConfigError(setting, f"{value!r} is none", f"Use one of {', '.join(allowed)}.")
        for setting, number, least, most in (
            ("--workers", self.workers, 1, MOST_WORKERS),
            ("--max-connections", self.max_connections, 1, 1 << 20),
            ("--trace-ratio", self.trace_ratio, 0, 1),
        ):
            if not least <= number <= most:
                raise ConfigError(setting, f"{number} is out of range", f"Give a number from {least} to {most}.")
        if self.probe_path and not self.probe_path.startswith("/"):
            raise ConfigError("--probe-path", f"{self.probe_path!r} is no path", "Begin it with a slash.")
        if "shipper" in self.processes and self.kafka is None:
            raise ConfigError("--kafka", "is missing", "Give the brokers as HOST:PORT.")
        if len(str(self.socket_path).encode()) + _LANE_SUFFIX > PATH_LIMIT:
            problem = f"{self.socket_path} is longer than {PATH_LIMIT - _LANE_SUFFIX} bytes"
            raise ConfigError("--capture-socket", problem, "Give a shorter path.")
        _ = self.address

    @property
    def processes(self) -> tuple[str, ...]:
        """The processes of one worker. Where nothing is logged only the tap is left, for its metrics."""
        return ROLES["tap"] if self.log_mode == "none" and self.role == "all" else ROLES[self.role]

    @property
    def address(self) -> Upstream:
        """The predictor's address."""
        return Upstream.parse(self.upstream)

    @property
    def socket_path(self) -> Path:
        """Where the first worker's tap and recorder meet."""
        return self.capture_socket or self.spool / "capture.sock"

    @property
    def accounts(self) -> Path:
        """The folder of its tap's account files: beside the socket, which both containers of a pod share."""
        return self.socket_path.parent / "taps"

    def service(self) -> dict[str, str]:
        """The identity labels every metric of this logger carries."""
        return {
            "namespace": self.namespace,
            "inferenceservice": self.inference_service,
            "component": self.component,
        }
