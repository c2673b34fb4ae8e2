"""What `servelens logger` was told, checked, and how it is handed on to each child as arguments."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

from servelens.contract.errors import ConfigError
from servelens.contract.events import LogMode
from servelens.io.kafka import KafkaSettings, as_arguments

ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    "all": ("tap", "recorder", "shipper"),
    "tap": ("tap",),
    "recorder": ("recorder", "shipper"),
}
UNIX_PATH_LIMIT: Final = 100  # characters; sun_path holds 108 bytes with its end


@dataclass(frozen=True, slots=True)
class LoggerSettings:
    """Sizes in bytes, times in seconds. `kafka` None only where no shipper runs (role `tap`)."""

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
    log_mode: LogMode = "exchange"
    role: str = "all"
    capture_socket: Path | None = None
    synthetic_key: Path | None = None
    capture_memory: int = 32 << 20
    body_cap: int = 1 << 20
    on_unparsable: str = "blind"
    spool_bytes: int = 512 << 20
    spool_policy: str = "drop-new"
    accounting_seconds: float = 10.0
    create_topics: bool = True
    partitions: int = 4
    grace_seconds: float = 10.0

    def __post_init__(self) -> None:
        for setting, value, allowed in (
            ("--role", self.role, tuple(ROLES)),
            ("--log-mode", self.log_mode, get_args(LogMode)),
            ("--on-unparsable", self.on_unparsable, ("blind", "close")),
            ("--spool-policy", self.spool_policy, ("drop-new", "drop-old")),
        ):
            if value not in allowed:
                raise ConfigError(setting, f"{value!r} is none", f"Use one of {', '.join(allowed)}.")
        if "shipper" in ROLES[self.role] and self.kafka is None:
            raise ConfigError("--kafka", "is missing", "Give the brokers as HOST:PORT.")
        if len(str(self.socket_path)) > UNIX_PATH_LIMIT:
            problem = f"{self.socket_path} is longer than {UNIX_PATH_LIMIT} characters"
            raise ConfigError("--capture-socket", problem, "Give a shorter path.")

    @property
    def socket_path(self) -> Path:
        """Where tap and recorder meet."""
        return self.capture_socket or self.spool / "capture.sock"

    @property
    def accounts(self) -> Path:
        """The folder of the taps' account files: beside the socket, which both containers of a pod share."""
        return self.socket_path.parent / "taps"

    def service(self) -> dict[str, str]:
        """The identity labels every metric of this logger carries."""
        return {
            "namespace": self.namespace,
            "inferenceservice": self.inference_service,
            "component": self.component,
        }

    def _identity(self) -> list[str]:
        return [
            "--namespace", self.namespace,
            "--inference-service", self.inference_service,
            "--component", self.component,
        ]  # fmt: skip

    def arguments(self, child: str, listen_fd: int) -> list[str]:
        """The command-line arguments of `tap`, `recorder` or `shipper`."""
        return {"tap": self._tap, "recorder": self._recorder, "shipper": self._shipper}[child](listen_fd)

    def _tap(self, listen_fd: int) -> list[str]:
        key = ["--synthetic-key", str(self.synthetic_key)] if self.synthetic_key else []
        return [
            "--listen-fd", str(listen_fd),
            "--upstream", upstream_address(self.upstream),
            "--capture-socket", str(self.socket_path),
            "--accounts", str(self.accounts),
            *self._identity(),
            "--capture-memory", str(self.capture_memory),
            "--body-cap", str(self.body_cap),
            "--on-unparsable", self.on_unparsable,
            "--drain-seconds", str(self.grace_seconds),
            *key,
        ]  # fmt: skip

    def _recorder(self, _: int) -> list[str]:
        return [
            "--capture-socket", str(self.socket_path),
            "--accounts", str(self.accounts),
            "--spool", str(self.spool),
            "--spool-bytes", str(self.spool_bytes),
            "--spool-policy", self.spool_policy,
            *self._identity(),
            "--revision", self.revision,
            "--log-mode", self.log_mode,
            "--accounting-seconds", str(self.accounting_seconds),
        ]  # fmt: skip

    def _shipper(self, _: int) -> list[str]:
        create = "--create-topics" if self.create_topics else "--no-create-topics"
        return [
            "--spool", str(self.spool),
            *as_arguments(self.kafka or KafkaSettings("")),
            "--topic-prefix", self.topic_prefix,
            "--partitions", str(self.partitions),
            "--grace-seconds", str(self.grace_seconds),
            create,
            *self._identity(),
        ]  # fmt: skip


def upstream_address(url: str) -> str:
    """HOST:PORT of `http://HOST:PORT` or HOST:PORT; ConfigError for anything else."""
    address = url.removeprefix("http://").rstrip("/")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in address:
        raise ConfigError("--upstream", f"{url!r} is not http://HOST:PORT", "Name the predictor's own port.")
    return address
