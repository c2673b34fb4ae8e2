"""A collector that speaks OTLP over HTTP: where it is, what to show it, and one POST at a time, connection kept open.

Apart from `tracing`, which knows spans and nothing of HTTP: bytes out, status and bytes in. Everything comes from flags
and files. The environment changes nothing here: OTEL_* is not read, nor a proxy's variables or `.netrc`; without a CA
file the system's trust store is OpenSSL's, and so are SSL_CERT_FILE and SSL_CERT_DIR. Redirects are not followed: they
would take the headers elsewhere.
"""

import contextlib
import re
import socket
import ssl
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from servelens import __version__
from servelens.contract.errors import ConfigError

TRACES_PATH: Final = "/v1/traces"
_REMEDY: Final = "Give http://HOST:PORT or https://HOST:PORT, with or without a path that ends in /v1/traces."
_HEADERS_LIMIT: Final = 65_536  # bytes
_ANSWER_LIMIT: Final = 65_536
_PATH: Final = re.compile(r"/[!-~]*")
_HOST: Final = re.compile(r"[A-Za-z0-9._:-]+")
_HEADER: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~]+?)[ \t]*")  # RFC 9110 section 5, ASCII
_OURS: Final = frozenset(
    {"connection", "content-encoding", "content-length", "content-type", "host", "transfer-encoding", "user-agent"}
)


@dataclass(frozen=True, slots=True)
class OtlpSettings:
    """Where the collector is and how to speak to it. `headers_file` is read again for every POST, as it is renewed."""

    endpoint: str
    headers_file: Path | None = None
    ca_file: Path | None = None


# Flag → field of OtlpSettings.
FLAGS: Final[Mapping[str, str]] = {
    "--otlp": "endpoint",
    "--otlp-headers-file": "headers_file",
    "--otlp-ca-file": "ca_file",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Give an internal process's parser the OTLP flags, and the ratio that goes with them."""
    for flag, name in FLAGS.items():
        parser.add_argument(flag, dest=f"otlp_{name}", type=Path if name.endswith("_file") else str)
    parser.add_argument("--trace-ratio", type=float, default=0.0)


def from_arguments(parsed: Namespace) -> OtlpSettings | None:
    """The settings of parsed arguments; None without `--otlp`."""
    given = {name: getattr(parsed, f"otlp_{name}") for name in FLAGS.values()}
    return OtlpSettings(**given) if given["endpoint"] else None


class Endpoint(NamedTuple):
    """Where to POST; `path` is what stands in the request line."""

    tls: bool
    host: str
    port: int
    path: str


def endpoint_of(text: str, setting: str = "--otlp") -> Endpoint:
    """The endpoint of a URL; ConfigError says what is wrong with it and never repeats it, since it may hold a token."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigError(setting, "is no URL with a port from 1 to 65535", _REMEDY) from None
    if parts.scheme not in ("http", "https"):
        raise ConfigError(setting, "is neither http:// nor https://", _REMEDY)
    if "@" in parts.netloc or "?" in text or "#" in text:
        remedy = "Put credentials into the file of --otlp-headers-file, as NAME: VALUE lines."
        raise ConfigError(setting, "holds credentials, a query or a fragment", remedy)
    if not host or not _HOST.fullmatch(host) or not port:
        raise ConfigError(setting, "has no host or no port", _REMEDY)
    path = parts.path.rstrip("/") or TRACES_PATH
    if not path.endswith(TRACES_PATH) or not _PATH.fullmatch(path):
        raise ConfigError(setting, "has a path that does not end in /v1/traces", _REMEDY)
    return Endpoint(parts.scheme == "https", host, port, path)


def read_headers(path: Path, setting: str = "--otlp-headers-file") -> dict[str, str]:
    """The headers of a file, one `NAME: VALUE` a line; ConfigError names the line and never repeats it."""
    try:
        with path.open("rb") as file:
            raw = file.read(_HEADERS_LIMIT + 1)
    except OSError as error:
        raise ConfigError(setting, f"{path} cannot be read ({error.strerror})", "Mount the Secret there.") from error
    if len(raw) > _HEADERS_LIMIT:
        raise ConfigError(setting, f"{path} is over {_HEADERS_LIMIT} bytes", "Leave only the headers in it.")
    found: dict[str, str] = {}
    for number, line in enumerate(raw.decode("latin-1").split("\n"), 1):
        if not line.strip():
            continue
        match = _HEADER.fullmatch(line.rstrip("\r"))
        if match is None or match[1].lower() in _OURS:
            problem = f"line {number} of {path} is no header we can send"
            raise ConfigError(setting, problem, "Write NAME: VALUE in ASCII; framing headers are set by ServeLens.")
        found[match[1].lower()] = match[2]
    return found


class Answer(NamedTuple):
    """What came of a POST: `status` is None where nobody answered, and `problem` says why, without any value sent."""

    status: int | None
    body: bytes = b""
    retry_after: float | None = None  # seconds
    problem: str = ""


class Collector:
    """One connection, made when needed and again after a failure. One thread posts; any may `abort`."""

    def __init__(self, settings: OtlpSettings) -> None:
        self.endpoint = endpoint_of(settings.endpoint)
        self._headers_file = settings.headers_file
        self._headers = read_headers(settings.headers_file) if settings.headers_file else {}
        self._tls = _tls_context(settings.ca_file) if self.endpoint.tls else None
        self._connection: HTTPConnection | None = None

    def __str__(self) -> str:
        host = self.endpoint.host
        return f"[{host}]:{self.endpoint.port}" if ":" in host else f"{host}:{self.endpoint.port}"

    def post(self, body: bytes, timeout: float) -> Answer:
        """Send one gzipped protobuf message; never raises for what the network or the collector does.

        `timeout` in seconds is for connecting, for sending, and for each wait for bytes of the answer.
        """
        reused = self._connection is not None
        try:
            return self._exchange(body, timeout)
        except (ConnectionError, HTTPException) as error:
            self.abort()
            if not reused:
                return Answer(None, problem=_reason(error))
        except OSError as error:
            self.abort()
            return Answer(None, problem=_reason(error))
        return self.post(body, timeout)  # a connection kept open may have been closed by the other side meanwhile

    def _exchange(self, body: bytes, timeout: float) -> Answer:
        connection = self._connected(timeout)
        connection.request("POST", self.endpoint.path, body, self._request_headers())
        with connection.getresponse() as response:
            content = response.read(_ANSWER_LIMIT)
            complete = response.isclosed() or not response.read(1)
            answer = Answer(response.status, content, _seconds(response.getheader("retry-after", "")))
        if not complete or response.will_close:
            self.abort()
        return answer

    def _connected(self, timeout: float) -> HTTPConnection:
        connection = self._connection
        if connection is None:
            host, port = self.endpoint.host, self.endpoint.port
            if self._tls is None:
                connection = HTTPConnection(host, port, timeout=timeout)
            else:
                connection = HTTPSConnection(host, port, timeout=timeout, context=self._tls)
            self._connection = connection
            connection.connect()
        connection.sock.settimeout(timeout)
        return connection

    def _request_headers(self) -> dict[str, str]:
        if self._headers_file is not None:
            with contextlib.suppress(ConfigError):  # a Secret being replaced; the last good ones stay
                self._headers = read_headers(self._headers_file)
        return {
            "User-Agent": f"servelens/{__version__}",
            **self._headers,
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "gzip",
        }

    def abort(self) -> None:
        """Close the connection, also under a thread that waits on it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            sock = connection.sock
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            connection.close()


def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        problem = f"{ca_file} cannot be read as CA certificates"
        raise ConfigError("--otlp-ca-file", problem, "Give a file of certificates in PEM.") from error


def _seconds(text: str | None) -> float | None:
    """A Retry-After in seconds; its other form, a date, is left to our own back-off."""
    return float(text) if text and len(text) <= 6 and text.isascii() and text.isdigit() else None


def _reason(error: Exception) -> str:
    """The kind of failure and the system's word for it; never text of the other side's."""
    detail = getattr(error, "strerror", None) or getattr(error, "verify_message", None)
    return f"{type(error).__name__} ({detail})" if detail else type(error).__name__
