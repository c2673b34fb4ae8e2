"""The one module that talks to the predictor: an HTTP client with its own identity, bounded in time and bytes.

It never forwards a caller's headers, unless `forward_authorization` is on: then a caller's authorization is what goes
out, and what keeps that caller's rows and answers apart from everyone else's. A valid synthetic header keeps the tap
from logging our rows.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final
from urllib.parse import quote

import httpx
import numpy as np
import orjson

from explainers import dialects
from explainers.coding import Array, Coding, Rows
from explainers.dialects import Dialect, Question, Shape
from servelens.contract import synthetic
from servelens.contract.errors import DeadlineExceeded, PayloadError, UpstreamAway, UpstreamError
from servelens.contract.wire import INFERENCE_HEADER_CONTENT_LENGTH, parse_header_length

log = logging.getLogger(__name__)

ANSWER_BYTES: Final = 256 << 20
CALL_SECONDS: Final = 60.0
EXTENSION: Final = "binary_tensor_data"  # as the V2 server metadata lists it
_NO_METADATA: Final = frozenset({404, 405, 501})
_ERROR_TEXT: Final = 300  # characters of the predictor's own message that are repeated

Observe = Callable[[str, int, float], None]
Answer = tuple[int, Mapping[str, str], bytes]  # status, headers, body


@dataclass(frozen=True, slots=True)
class PredictorSettings:
    """`url` without path. `protocol` v1 or v2; `binary` auto, always or never; `shape` None = ask the model."""

    url: str
    model: str
    protocol: str = "v1"
    binary: str = "auto"
    shape: Shape | None = None
    token: str = field(default="", repr=False)
    key: bytes = field(default=b"", repr=False)
    call_seconds: float = CALL_SECONDS


class Predictor:
    """Answers rows. `observe(code, rows, seconds)` hears of each call; code is a status, or what went wrong."""

    def __init__(
        self,
        settings: PredictorSettings,
        coding: Coding,
        observe: Observe = lambda *_: None,
    ) -> None:
        self._settings, self._coding, self._observe = settings, coding, observe
        self._client: httpx.AsyncClient | None = None
        self._sign = synthetic.signer(settings.key) if settings.key else None
        self._spoken: tuple[Dialect, Shape] | None = None
        self._asking = asyncio.Lock()

    async def call(self, rows: Rows, seconds: float, authorization: str = "") -> Array:
        """(rows, outputs) float64. Raises UpstreamError and its kin."""
        deadline = time.monotonic() + seconds
        dialect, shape = self._spoken or await self._agree(authorization, deadline)
        question = await asyncio.to_thread(
            dialects.ask, dialect, self._coding, rows, quote(self._settings.model, safe=""), shape
        )
        status, headers, body = await self._send("POST", question, authorization, deadline, len(rows))
        if status != 200:
            raise UpstreamError(f"the predictor answered {status}{_said(body)}")
        try:
            length = headers.get(INFERENCE_HEADER_CONTENT_LENGTH.lower())
            outputs = await asyncio.to_thread(
                dialects.answer, dialect, self._coding.schema, body, parse_header_length(length) if length else None
            )
        except PayloadError as error:
            raise UpstreamError(f"the predictor's answer cannot be read: {error}") from error
        return _checked(outputs, len(rows))

    async def _agree(self, authorization: str, deadline: float) -> tuple[Dialect, Shape]:
        """Dialect and shape, once: settings first, else what the server says of itself and its model."""
        async with self._asking:
            if self._spoken is None:
                self._spoken = await self._negotiated(authorization, deadline)
                log.info("predictor", extra={"dialect": self._spoken[0], "tensor": self._spoken[1].tensor or "by name"})
        return self._spoken

    async def _negotiated(self, authorization: str, deadline: float) -> tuple[Dialect, Shape]:
        settings, schema = self._settings, self._coding.schema
        if settings.protocol == "v1":
            return "v1", Shape()
        binary = settings.binary == "always"
        if settings.binary == "auto":
            extensions = (await self._metadata("/v2", authorization, deadline)).get("extensions")
            binary = isinstance(extensions, list) and EXTENSION in extensions
        shape = settings.shape
        if shape is None:
            inputs = (
                await self._metadata(f"/v2/models/{quote(settings.model, safe='')}", authorization, deadline)
            ).get("inputs")
            shape = dialects.shape_of(schema, inputs) if isinstance(inputs, list) else None
        return "v2-binary" if binary else "v2", shape or dialects.default_shape(schema)

    async def _metadata(self, path: str, authorization: str, deadline: float) -> Mapping[str, Any]:
        """The JSON object at a path; empty where the server has none. What may pass by itself settles nothing."""
        status, _, body = await self._send("GET", Question(path, b"", {}), authorization, deadline, 0)
        if status in _NO_METADATA:
            return {}
        if status != 200:
            raise UpstreamError(f"the predictor answered {status} to {path}{_said(body)}")
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise UpstreamError(f"the predictor's {path} is not JSON") from error
        return document if isinstance(document, dict) else {}

    async def _send(self, method: str, question: Question, authorization: str, deadline: float, rows: int) -> Answer:
        """One exchange; what broke, or took longer than a call may, is tried once more, which changes nothing."""
        for attempt in (1, 2):
            began, code = time.monotonic(), "error"
            try:
                async with asyncio.timeout(max(0.0, min(deadline - began, self._settings.call_seconds))):
                    answer = await self._exchange(method, question, authorization)
                code = str(answer[0])
                return answer
            except TimeoutError:
                code = "timeout"
                if time.monotonic() >= deadline:
                    raise DeadlineExceeded("the predictor did not answer in time; allow more time") from None
                if attempt == 2:
                    longest = self._settings.call_seconds
                    raise UpstreamError(f"the predictor took longer than {longest:g} s for one call, twice") from None
            except httpx.ConnectError as error:
                code = "away"
                problem = f"no connection to {self._settings.url} ({error})"
                raise UpstreamAway(f"{problem}; check --predictor_host") from error
            except httpx.HTTPError as error:
                code = "broken"
                if attempt == 2:
                    raise UpstreamError(f"the predictor hung up ({type(error).__name__})") from error
            finally:
                self._observe(code, rows, time.monotonic() - began)
        raise AssertionError("unreachable")

    async def _exchange(self, method: str, question: Question, authorization: str) -> Answer:
        headers = {**question.headers, "accept": "application/json, application/octet-stream"}
        if self._sign is not None:
            headers[synthetic.HEADER] = self._sign()
        authorization = authorization or (f"Bearer {self._settings.token}" if self._settings.token else "")
        if authorization:
            headers["authorization"] = authorization
        url = self._settings.url + question.path
        async with self._http().stream(method, url, content=question.body or None, headers=headers) as answer:
            body = bytearray()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > ANSWER_BYTES:
                    raise UpstreamError(f"the predictor's answer is over {ANSWER_BYTES} bytes; lower batch_rows")
            return answer.status_code, answer.headers, bytes(body)

    def _http(self) -> httpx.AsyncClient:
        """The client, made inside the running loop."""
        if self._client is None:
            verify = ssl.create_default_context() if self._settings.url.startswith("https") else False
            limits = httpx.Limits(max_connections=16, max_keepalive_connections=16)
            # No timeout here: every exchange runs under asyncio's, which bounds it as a whole.
            # A jar that takes nothing: one caller's cookie must not come back with another's question.
            jar = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
            self._client = httpx.AsyncClient(timeout=None, limits=limits, verify=verify, trust_env=False, cookies=jar)  # noqa: S113
        return self._client

    async def close(self) -> None:
        """Close its connections."""
        if self._client is not None:
            await self._client.aclose()


def _checked(outputs: Array, rows: int) -> Array:
    if outputs.shape[0] != rows:
        raise UpstreamError(f"the predictor answered {outputs.shape[0]} rows to {rows}")
    if not np.isfinite(outputs).all():
        raise UpstreamError("the predictor answered NaN or infinity, which cannot be attributed")
    return outputs


def _said(body: bytes) -> str:
    """The predictor's own `error`, cut short: it tells the caller about the caller's rows."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    said = document.get("error") if isinstance(document, dict) else None
    return f": {str(said)[:_ERROR_TEXT]}" if said else ""
