"""The HTTP scaffold of every service: `/healthz`, `/readyz`, `/metrics`, and errors as `{"error": …}`.

A service adds its own routes. The server runs in a thread of its own, so that a synchronous Kafka loop can own the
main thread; it binds before it starts, so port 0 is known in the start-up line.
"""

import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson
import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from servelens.contract.errors import ConfigError, Overloaded, ServeLensError, Unauthorized

Ready = Callable[[], str | None]


def json_response(value: Any, status: int = 200) -> Response:
    """Any JSON value."""
    return Response(orjson.dumps(value), status, media_type="application/json")


async def typed_error(_: Request, error: Exception) -> Response:
    """One of our errors as `{"error": …}` under its own status, any other as a bare 500: its text is for the log."""
    if not isinstance(error, ServeLensError):
        return json_response({"error": "internal error; the log of this process says more"}, 500)
    answer = json_response({"error": str(error)}, error.status)
    if isinstance(error, Overloaded):
        answer.headers["retry-after"] = str(max(1, round(error.retry_after)))
    if isinstance(error, Unauthorized):
        answer.headers["www-authenticate"] = "Bearer"
    return answer


def app(registry: CollectorRegistry, ready: Ready, routes: Sequence[Route] = ()) -> Starlette:
    """The scaffold; `ready` gives None, or why this process should get no traffic yet."""
    own = [*health_routes(registry, ready), *routes]
    return Starlette(routes=own, exception_handlers={ServeLensError: typed_error})


def health_routes(registry: CollectorRegistry, ready: Ready) -> list[Route]:
    """`/healthz`, `/readyz` and `/metrics`, for an app of another make."""

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        reason = await run_in_threadpool(ready)  # it may ask over the network
        return PlainTextResponse("ready\n") if reason is None else PlainTextResponse(reason + "\n", 503)

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": content_type})

    own: list[tuple[str, Callable[[Request], Awaitable[Response]]]] = [
        ("/healthz", healthz),
        ("/readyz", readyz),
        ("/metrics", metrics),
    ]
    return [Route(path, endpoint) for path, endpoint in own]


def bind(address: str, setting: str = "--listen", backlog: int = 1024, *, reuse_port: bool = False) -> socket.socket:
    """A listening TCP socket on HOST:PORT, port 0 = chosen; ConfigError naming the flag."""
    host, _, port = address.rpartition(":")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server(
            (host.strip("[]"), int(port)), family=family, backlog=backlog, reuse_port=reuse_port
        )
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(
            setting, f"cannot listen on {address!r} ({error})", "Give HOST:PORT, port 0 = any."
        ) from error


def address_of(bound: socket.socket) -> str:
    """HOST:PORT of a bound socket."""
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Server:
    """uvicorn on a bound socket, in a daemon thread; the application's lifespan, if it has one, is run."""

    def __init__(self, application: Any, bound: socket.socket) -> None:
        config = uvicorn.Config(application, log_config=None, access_log=False, lifespan="auto", timeout_keep_alive=30)
        self._server = uvicorn.Server(config)
        self._bound = bound
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def _run(self) -> None:
        self._server.run(sockets=[self._bound])

    def start(self) -> None:
        """Begin to serve; connections made since `bind` are answered."""
        self._thread.start()

    def stop(self, grace: float = 2.0) -> None:
        """Finish open requests, then end."""
        self._server.should_exit = True
        self._thread.join(grace)


def announce(**addresses: str) -> None:
    """The start-up line: one JSON object, the first thing on stdout."""
    sys.stdout.write(orjson.dumps(addresses).decode() + "\n")
    sys.stdout.flush()
