"""What the tap hands to the recorder: one exchange as a frame of bytes, and the framing on the local socket.

Apart from `servelens.contract.events` since this never leaves the pod and is made on the hot path. The tap encodes,
the recorder decodes; both are of one version, started by one parent or from one image.

On the socket, tap to recorder: a hello `{stream: str}` as a frame of number 0, then frames numbered from 1 without
holes. Recorder to tap: after the hello and after each spool commit, the number of the last frame it has committed.
The tap keeps every frame until it is acknowledged and sends the rest again on a new connection: between tap and spool
nothing is lost or counted twice, whoever of the recorder is killed.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson

from logger.seen import Body, Seen
from servelens.contract.errors import StateError
from servelens.contract.events import Exchange, Half
from servelens.contract.identity import ModelIdentity

FRAME_HEAD: Final = struct.Struct("<IQ")  # bytes that follow, frame number
ACK: Final = struct.Struct("<Q")  # the last frame number committed to the spool
_META: Final = struct.Struct("<II")  # bytes of JSON, bytes of the request body; the rest is the response body
MAX_FRAME: Final = 64 << 20
NOBODY: Final = ModelIdentity("", "")


def encode(exchange: Exchange | Seen) -> bytes:
    """The payload of a frame: JSON of what is small, then both bodies as they are.

    The tap gives its open exchange as it is: to make an `Exchange` of it first would cost 8 µs, nine times this.
    """
    request, response = exchange.request or Half(), exchange.response or Half()
    meta = orjson.dumps(
        (
            exchange.exchangeid,
            exchange.arrived_us,
            exchange.method,
            exchange.path,
            exchange.status,
            exchange.protocol,
            exchange.duration_us,
            exchange.requestid,
            exchange.traceparent,
            exchange.claimedsynthetic,
            request.small() if isinstance(request, Body) else _small(request),
            response.small() if isinstance(response, Body) else _small(response),
        )
    )
    return b"".join((_META.pack(len(meta), len(request.body)), meta, request.body, response.body))


def _small(half: Half) -> tuple[int, bool, str, str, int | None]:
    return half.size, half.truncated, half.content_type, half.encoding, half.header_length


def decode(payload: bytes, whose: Callable[[str], ModelIdentity] = lambda _: NOBODY, **ours: Any) -> Exchange:
    """The exchange of a frame's payload; StateError if the two processes are of different versions.

    `whose` gives the identity by the path, `ours` are fields that no tap knows: to add them to a made exchange costs
    as much as this.
    """
    try:
        meta_length, request_length = _META.unpack_from(payload)
        start = _META.size + meta_length
        meta = orjson.loads(payload[_META.size : start])
        exchangeid, arrived, method, path, status, protocol, duration, requestid, trace, claimed, asked, answered = meta
    except (struct.error, orjson.JSONDecodeError, ValueError) as error:
        raise StateError(
            f"a frame from the tap cannot be read ({error}); run tap and recorder from one image"
        ) from error
    return Exchange(
        exchangeid,
        arrived,
        whose(path),
        **ours,
        method=method,
        path=path,
        status=status,
        protocol=protocol,
        duration_us=duration,
        requestid=requestid,
        traceparent=trace,
        claimedsynthetic=claimed,
        request=Half(payload[start : start + request_length], *asked),
        response=Half(payload[start + request_length :], *answered),
    )


def frame(number: int, payload: bytes) -> bytes:
    """A payload with its head, ready for the socket."""
    return FRAME_HEAD.pack(len(payload), number) + payload


def hello(stream: str) -> bytes:
    """The first frame on a connection; `stream` names the tap process's account file."""
    return frame(0, orjson.dumps({"stream": stream}))


class FrameReader:
    """Cuts a byte stream into frames. No I/O: feed bytes, iterate (number, payload)."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._buffer, self._limit = bytearray(), limit

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Frames completed by `data`; StateError for a frame over the limit."""
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= FRAME_HEAD.size:
            length, number = FRAME_HEAD.unpack_from(self._buffer, start)
            if length > self._limit:
                raise StateError(f"a frame of {length} bytes; the limit is {self._limit}")
            end = start + FRAME_HEAD.size + length
            if len(self._buffer) < end:
                break
            yield number, bytes(memoryview(self._buffer)[start + FRAME_HEAD.size : end])
            start = end
        del self._buffer[:start]
