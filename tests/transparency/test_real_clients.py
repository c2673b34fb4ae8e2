"""Other people's clients through the tap get what they get directly: curl, requests, httpx, aiohttp.

Each client takes the same walk over the same server twice. An event of the event stream is sent only after the client
has confirmed the one before by a request of its own, so that a tap that kept anything back would never end.
"""

import asyncio
import gzip
import hashlib
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import httpx
import pytest
import requests
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from tap_parts import RecorderEnd, tap_process, until

LARGE: Final = bytes(range(256)) * (5 << 12)  # 5 MiB
PIECES: Final = [LARGE[start : start + 70_001] for start in range(0, 1 << 20, 70_001)]
DIGEST: Final = hashlib.sha256(b"".join(PIECES)).hexdigest()
ASKED: Final = {"instances": [[1.5, "ü"]], "id": None}
EVENTS: Final = 8
SECONDS: Final = 10

Walk = dict[str, Any]


@dataclass
class Stage:
    """The server's app, and which events have been confirmed."""

    confirmed: dict[str, asyncio.Event] = field(default_factory=dict)

    @property
    def app(self) -> Starlette:
        every = ["GET", "HEAD", "POST"]
        paths = {
            "/echo": self._echo, "/large": self._large, "/digest": self._digest, "/gzip": self._gzip,
            "/nothing": self._nothing, "/moved": self._moved, "/wrong": self._wrong, "/events": self._events,
            "/confirm": self._confirm,
        }  # fmt: skip
        return Starlette(routes=[Route(path, endpoint, methods=every) for path, endpoint in paths.items()])

    async def _echo(self, request: Request) -> Response:
        body = await request.body()
        return JSONResponse({"method": request.method, "body": json.loads(body) if body else None})

    async def _large(self, _: Request) -> Response:
        return Response(LARGE, media_type="application/octet-stream")

    async def _digest(self, request: Request) -> Response:
        digest, size = hashlib.sha256(), 0
        async for piece in request.stream():
            digest.update(piece)
            size += len(piece)
        framing = "chunked" if "transfer-encoding" in request.headers else "length"
        return JSONResponse([digest.hexdigest(), size, framing])

    async def _gzip(self, _: Request) -> Response:
        return Response(gzip.compress(LARGE[:50_000], mtime=0), headers={"content-encoding": "gzip"})

    async def _nothing(self, _: Request) -> Response:
        return Response(status_code=204)

    async def _moved(self, _: Request) -> Response:
        return RedirectResponse("/echo", 307)

    async def _wrong(self, _: Request) -> Response:
        return JSONResponse({"error": "no such model"}, 404)

    async def _events(self, request: Request) -> Response:
        run = request.query_params["run"]

        async def told() -> AsyncIterator[str]:
            for number in range(EVENTS):
                confirmed = self.confirmed.setdefault(f"{run}-{number}", asyncio.Event())
                yield f"data: {number}\n\n"
                try:
                    await asyncio.wait_for(confirmed.wait(), SECONDS)
                except TimeoutError:
                    yield "data: never confirmed\n\n"
                    return

        return StreamingResponse(told(), media_type="text/event-stream")

    async def _confirm(self, request: Request) -> Response:
        self.confirmed[f"{request.query_params['run']}-{request.query_params['number']}"].set()
        return Response(status_code=204)


@contextmanager
def http_server() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(Stage().app, ws="none", log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        until(lambda: server.started, "uvicorn")
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(10)


@dataclass(frozen=True, slots=True)
class Both:
    """The same server, directly and through a tap; `recorder` is that tap's."""

    direct: str
    tapped: str
    recorder: RecorderEnd


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("clients")
    with (
        http_server() as port,
        RecorderEnd(folder / "capture.sock") as recorder,
        tap_process(port, folder) as (_, tapped),
    ):
        yield Both(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{tapped}", recorder)


def confirmer(base: str, run: str) -> Callable[[int], None]:
    def confirm(number: int) -> None:
        answer = httpx.post(f"{base}/confirm", params={"run": run, "number": str(number)})
        assert answer.status_code == 204

    return confirm


def read_events(lines: Iterator[str], confirm: Callable[[int], None]) -> list[str]:
    seen = []
    for line in lines:
        if line.startswith("data: "):
            seen.append(line.removeprefix("data: ").strip())
            confirm(len(seen) - 1)
    return seen


def kept(headers: Any) -> dict[str, str]:
    """What of the headers does not depend on the moment."""
    return {name.lower(): value for name, value in headers.items() if name.lower() != "date"}


# The walks.


def with_requests(base: str) -> Walk:
    with requests.Session() as session:
        got = {
            "echo": session.post(f"{base}/echo", json=ASKED),
            "large": session.get(f"{base}/large"),
            "upload": session.post(f"{base}/digest", data=b"".join(PIECES)),
            "chunked": session.post(f"{base}/digest", data=iter(PIECES)),
            "gzip": session.get(f"{base}/gzip"),
            "nothing": session.get(f"{base}/nothing"),
            "moved": session.post(f"{base}/moved", json=ASKED),
            "head": session.head(f"{base}/large"),
            "wrong": session.get(f"{base}/wrong"),
        }
        with session.get(f"{base}/events", params={"run": base + "requests"}, stream=True, timeout=SECONDS) as answer:
            lines = answer.iter_lines(chunk_size=1, decode_unicode=True)
            events = read_events(lines, confirmer(base, base + "requests"))
        walk: Walk = {name: (a.status_code, kept(a.headers), a.content) for name, a in got.items()}
        return walk | {"events": events}


def with_httpx(base: str) -> Walk:
    with httpx.Client(base_url=base, follow_redirects=True, timeout=SECONDS) as client:
        got = {
            "echo": client.post("/echo", json=ASKED),
            "large": client.get("/large"),
            "upload": client.post("/digest", content=b"".join(PIECES)),
            "chunked": client.post("/digest", content=iter(PIECES)),
            "gzip": client.get("/gzip"),
            "nothing": client.get("/nothing"),
            "moved": client.post("/moved", json=ASKED),
            "head": client.head("/large"),
            "wrong": client.get("/wrong"),
        }
        with client.stream("GET", "/events", params={"run": base + "httpx"}) as answer:
            events = read_events(answer.iter_lines(), confirmer(base, base + "httpx"))
        walk: Walk = {name: (a.status_code, kept(a.headers), a.content) for name, a in got.items()}
        return walk | {"events": events}


def with_aiohttp(base: str) -> Walk:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in PIECES:
            yield piece

    async def events(session: aiohttp.ClientSession) -> list[str]:
        seen: list[str] = []
        async with session.get("/events", params={"run": base + "aiohttp"}) as answer:
            async for line in answer.content:
                if line.startswith(b"data: "):
                    seen.append(line.removeprefix(b"data: ").decode().strip())
                    params = {"run": base + "aiohttp", "number": str(len(seen) - 1)}
                    async with session.post("/confirm", params=params) as confirmed:
                        assert confirmed.status == 204
        return seen

    async def walk() -> Walk:
        timeout = aiohttp.ClientTimeout(total=3 * SECONDS)
        async with aiohttp.ClientSession(base, timeout=timeout) as session:
            asked: dict[str, Any] = {
                "echo": session.post("/echo", json=ASKED),
                "large": session.get("/large"),
                "upload": session.post("/digest", data=b"".join(PIECES[:3])),
                "chunked": session.post("/digest", data=pieces()),
                "gzip": session.get("/gzip"),
                "nothing": session.get("/nothing"),
                "moved": session.post("/moved", json=ASKED),
                "head": session.head("/large"),
                "wrong": session.get("/wrong"),
            }
            got: Walk = {}
            for name, asking in asked.items():
                async with asking as answer:
                    got[name] = (answer.status, kept(answer.headers), await answer.read())
            return got | {"events": await events(session)}

    return asyncio.run(walk())


def with_curl(base: str) -> Walk:
    def curl(path: str, *flags: str, data: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        command = ["curl", "-sS", "-L", "-D", "-", "--max-time", str(SECONDS), *flags, base + path]
        done = subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True, timeout=2 * SECONDS)
        rest, head = done.stdout, b""
        while rest.startswith(b"HTTP/1.1 "):
            head, _, rest = rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        return int(first.split()[1]), kept(dict(line.split(": ", 1) for line in lines)), rest

    def events() -> list[str]:
        url = f"{base}/events?run={base}curl"
        with subprocess.Popen(["curl", "-sS", "-N", url], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            seen = read_events(process.stdout, confirmer(base, base + "curl"))
        assert process.returncode == 0
        return seen

    typed = ("-H", "Content-Type: application/json", "--data-binary", "@-")
    plain = ("-H", "Content-Type: application/octet-stream", "--data-binary", "@-")
    return {
        "echo": curl("/echo", *typed, data=json.dumps(ASKED).encode()),
        "large": curl("/large"),
        "upload": curl("/digest", *plain, data=b"".join(PIECES)),
        "chunked": curl("/digest", "-X", "POST", "-H", "Expect: 100-continue", "-T", "-", data=b"".join(PIECES)),
        "gzip": curl("/gzip", "--compressed"),
        "nothing": curl("/nothing"),
        "moved": curl("/moved", *typed, data=json.dumps(ASKED).encode()),
        "head": curl("/large", "-I", "-o", "/dev/null"),
        "wrong": curl("/wrong"),
        "events": events(),
    }


WALKS: Final = {"requests": with_requests, "httpx": with_httpx, "aiohttp": with_aiohttp, "curl": with_curl}


@pytest.mark.parametrize("client", WALKS)
def test_a_client_gets_the_same_through_the_tap(both: Both, client: str) -> None:
    if client == "curl" and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    direct, tapped = WALKS[client](both.direct), WALKS[client](both.tapped)
    assert tapped.keys() == direct.keys()
    for step in direct:
        assert tapped[step] == direct[step], step
    assert json.loads(tapped["echo"][2]) == {"method": "POST", "body": ASKED}
    assert json.loads(tapped["moved"][2]) == {"method": "POST", "body": ASKED}
    assert tapped["large"][2] == LARGE
    assert json.loads(tapped["chunked"][2]) == [DIGEST, sum(map(len, PIECES)), "chunked"]
    assert json.loads(tapped["upload"][2])[2] == "length"
    assert tapped["gzip"][2] == LARGE[:50_000]
    assert (tapped["nothing"][0], tapped["nothing"][2]) == (204, b"")
    assert (tapped["head"][1]["content-length"], tapped["head"][2]) == (str(len(LARGE)), b"")
    assert tapped["wrong"][0] == 404
    assert tapped["events"] == [str(number) for number in range(EVENTS)]


def test_what_clients_asked_through_the_tap_was_recorded(both: Both) -> None:
    marker = {"x-request-id": "real-client"}
    assert httpx.post(f"{both.tapped}/echo", json=ASKED, headers=marker).status_code == 200
    until(lambda: "real-client" in {exchange.requestid for exchange in both.recorder.exchanges}, "its record")
    (exchange,) = [exchange for exchange in both.recorder.exchanges if exchange.requestid == "real-client"]
    assert (exchange.method, exchange.path, exchange.status) == ("POST", "/echo", 200)
    assert exchange.request is not None
    assert json.loads(exchange.request.body) == ASKED
