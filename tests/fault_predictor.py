"""The fault rounds' predictor, a process of its own: it echoes the number it finds in a request's body.

What is asked and answered under a number can be made again from the number alone, so nobody has to remember bodies.
Run as `python tests/fault_predictor.py PORT`.
"""

import asyncio
import re
import sys
import zlib

import uvloop

ID = re.compile(rb'"id":"(\d+)"')
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n")
SIZES = (120, 300, 300, 900, 2000, 2000, 3000, 12_000, 40_000)  # bytes of padding, in turn


def request_body(number: int) -> bytes:
    """What a client sends under a number."""
    padding = b"%016x" % (number * 0x9E3779B97F4A7C15 % (1 << 64)) * (SIZES[number % len(SIZES)] // 16)
    return b'{"id":"%d","inputs":"%b"}' % (number, padding)


def response_body(request: bytes) -> bytes:
    """What this predictor answers."""
    found = ID.search(request)
    assert found is not None
    number = int(found[1])
    return b'{"id":"%d","sum":%d,"outputs":"%b"}' % (number, zlib.crc32(request), b"y" * (number * 37 % 700))


def thinks(number: int) -> float:
    """Seconds it takes: most answers come at once, so that some are open at any moment and some just done."""
    return (1 + number * 7919 % 30) / 1000 if number % 4 == 0 else 0.0


class _Connection(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._data = transport, b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        length = LENGTH.search(head + b"\r\n")
        if not end or length is None or len(body) < int(length[1]):
            return
        self._data = b""
        found = ID.search(body)
        asyncio.get_running_loop().call_later(thinks(int(found[1]) if found else 0), self._answer, response_body(body))

    def _answer(self, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self._transport.write(head + body)  # type: ignore[attr-defined]


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", port, backlog=512)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(int(sys.argv[1])))
