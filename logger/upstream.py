"""Where the predictor listens: HOST:PORT or a UNIX socket, how it is written, connected to, and asked if it is ready.

Apart from the tap and the parent, which both need it: the one forwards there, the other answers `/readyz` with it.
"""

import asyncio
import http.client
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from servelens.contract.errors import ConfigError

_UNIX: Final = "unix:"
PATH_LIMIT: Final = 107  # bytes: sun_path holds 108 with its end
_READY: Final = range(200, 400)  # what kubelet takes for success of an httpGet probe


@dataclass(frozen=True, slots=True)
class Upstream:
    """One of both: `host` and `port`, or the `path` of a socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str, setting: str = "--upstream") -> "Upstream":
        """`http://HOST:PORT`, `HOST:PORT` or `unix:/PATH`; ConfigError for anything else."""
        if text.startswith(_UNIX):
            path = text.removeprefix(_UNIX).removeprefix("//")
            if not Path(path).is_absolute() or len(path.encode()) > PATH_LIMIT:
                remedy = f"Give unix: and an absolute path of at most {PATH_LIMIT} bytes."
                raise ConfigError(setting, f"{text!r} names no socket", remedy)
            return cls(path=path)
        address = text.removeprefix("http://").rstrip("/")
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 1 << 16 or "/" in address:
            raise ConfigError(setting, f"{text!r} is not http://HOST:PORT", "Name the predictor's own port.")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        if self.path:
            return _UNIX + self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    async def connect(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        """Connect on the running loop; OSError where nobody listens."""
        loop = asyncio.get_running_loop()
        if self.path:
            await loop.create_unix_connection(protocol, self.path)
        else:
            await loop.create_connection(protocol, self.host, self.port)

    def dial(self, timeout: float) -> socket.socket:
        """A connected socket, for callers without a loop; OSError."""
        if not self.path:
            return socket.create_connection((self.host, self.port), timeout)
        dialled = socket.socket(socket.AF_UNIX)
        dialled.settimeout(timeout)
        try:
            dialled.connect(self.path)
        except OSError:
            dialled.close()
            raise
        return dialled


class _Connection(http.client.HTTPConnection):
    """HTTP to an upstream of either kind."""

    def __init__(self, upstream: Upstream, timeout: float) -> None:
        super().__init__(upstream.host or "localhost", timeout=timeout)
        self._upstream = upstream

    def connect(self) -> None:
        self.sock: Any = self._upstream.dial(self.timeout or 1.0)


def unready(upstream: Upstream, probe_path: str = "", timeout: float = 1.0) -> str | None:
    """Why the predictor should get no traffic yet, or None: it accepts a connection, and answers `probe_path` well."""
    try:
        if not probe_path:
            upstream.dial(timeout).close()
            return None
        connection = _Connection(upstream, timeout)
        try:
            connection.request("GET", probe_path, headers={"user-agent": "kube-probe/servelens", "connection": "close"})
            status = connection.getresponse().status
        finally:
            connection.close()
    except (OSError, http.client.HTTPException) as error:
        return f"the predictor at {upstream} is not ready ({type(error).__name__})"
    return None if status in _READY else f"the predictor answers {probe_path} with {status}"
