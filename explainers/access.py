"""Who asks, and what they send: the caller's token, and bodies bounded in size, number and time.

Apart from `routes`, which knows what a body means. Called by each route before anything else.
"""

import asyncio
import hmac
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from starlette.requests import ClientDisconnect, Request

from servelens.contract.errors import DeadlineExceeded, Overloaded, PayloadError, TooLarge, Unauthorized

MAX_BODY: Final = 16 << 20
ALL_BODIES: Final = 128 << 20  # of all requests that are being read
T = TypeVar("T")


class ClientGone(Exception):
    """The caller closed the connection: nobody waits for an answer."""


@dataclass(frozen=True, slots=True)
class Access:
    """`token`: callers must show it; `forward`: their authorization is what the predictor gets."""

    token: str = field(default="", repr=False)
    forward: bool = False

    def authorization(self, request: Request) -> str:
        """What to ask the predictor with, "" for our own identity. Raises Unauthorized, PayloadError."""
        given = request.headers.get("authorization", "")
        if not given.isascii():
            raise PayloadError("authorization", "is not ASCII", reason="malformed")
        if self.token:
            scheme, _, shown = given.partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(shown.strip().encode(), self.token.encode()):
                raise Unauthorized("authorization: the token is missing or not the right one; send it as Bearer")
        if self.forward and not given:
            raise Unauthorized("authorization: is missing, and the predictor is asked with the caller's")
        return given if self.forward else ""


class Bodies:
    """Reads request bodies, all of them together within a bound."""

    def __init__(self, seconds: float, limit: int = ALL_BODIES) -> None:
        self._seconds, self._left = seconds, limit

    async def read(self, request: Request) -> bytes:
        """The whole body. Raises PayloadError, TooLarge, Overloaded, DeadlineExceeded, ClientGone."""
        if request.headers.get("content-encoding", "identity") != "identity":
            raise PayloadError("content-encoding", "is not supported; send the body uncompressed", reason="encoded")
        body = bytearray()
        try:
            async with asyncio.timeout(self._seconds):
                async for chunk in request.stream():
                    body += chunk
                    self._left -= len(chunk)
                    if len(body) > MAX_BODY:
                        raise TooLarge("body", f"over {MAX_BODY} bytes; send fewer rows")
                    if self._left < 0:
                        raise Overloaded("too many large requests are being read; ask again later")
        except TimeoutError:
            raise DeadlineExceeded("the body did not arrive within the deadline; send it faster") from None
        except ClientDisconnect:
            raise ClientGone from None
        finally:
            self._left += len(body)
        return bytes(body)


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """What the work gives; if the caller leaves first the work is cancelled, and ClientGone raised."""
    task, left = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for one in (task, left):
            one.cancel()
        await asyncio.gather(task, left, return_exceptions=True)


async def _left(request: Request) -> None:
    """Until the caller has closed the connection; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
