"""A collector of the tests' own: OTLP over HTTP received on a real socket, decoded, kept; and how one can misbehave."""

import gzip
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Reply = tuple[int, Mapping[str, str], bytes]
OK: Reply = (200, {"content-type": "application/x-protobuf"}, b"")


@dataclass
class Post:
    """One request: `raw` is its body without compression."""

    path: str
    headers: Mapping[str, str]
    raw: bytes
    client: Any
    answered: int

    @property
    def message(self) -> Any:
        return ExportTraceServiceRequest.FromString(self.raw)

    @property
    def spans(self) -> list[Any]:
        return [span for part in self.message.resource_spans for scoped in part.scope_spans for span in scoped.spans]


@dataclass
class Receiver:
    """`replies` are given in turn, then 200s; while `open` is not set, requests are read and not answered."""

    endpoint: str = ""
    posts: list[Post] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    open: threading.Event = field(default_factory=threading.Event)

    @property
    def spans(self) -> list[Any]:
        return [span for post in self.posts if post.answered == 200 for span in post.spans]

    def wait_spans(self, count: int, seconds: float = 20.0) -> list[Any]:
        deadline = time.monotonic() + seconds
        while len(self.spans) < count:
            assert time.monotonic() < deadline, f"{len(self.spans)} of {count} spans"
            time.sleep(0.01)
        return self.spans


def attributes(owner: Any) -> dict[str, Any]:
    """The attributes of a span or resource as Python values."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in owner.attributes}


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            raw = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
            receiver.open.wait(60)
            status, extra, answer = receiver.replies.pop(0) if receiver.replies else OK
            receiver.posts.append(Post(self.path, headers, raw, self.client_address, status))
            self.send_response(status)
            for name, value in {**extra, "content-length": str(len(answer))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
            pass

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone away is part of the tests."""


@contextmanager
def receiving(certificate: tuple[Path, Path] | None = None, *, hang: bool = False) -> Iterator[Receiver]:
    """A receiver on a free port; with a certificate and its key, over TLS."""
    receiver = Receiver()
    if not hang:
        receiver.open.set()
    server = _Server(("127.0.0.1", 0), _handler(receiver))
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    receiver.endpoint = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.open.set()
        server.shutdown()
        server.server_close()
        thread.join(5)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=collector"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=60)
    return cert, key
