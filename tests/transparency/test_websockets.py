"""WebSockets of the websockets package through the tap: the same messages, pongs and close codes as directly."""

import threading
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import pytest
import websockets.exceptions
import websockets.sync.client
import websockets.sync.server
from tap_parts import RecorderEnd, tap_process

BYTES: Final = bytes(range(256)) * (4 << 10)  # 1 MiB
SECONDS: Final = 10


class Addresses(NamedTuple):
    """One server, directly and through a tap."""

    direct: str
    tapped: str


def echo(connection: websockets.sync.server.ServerConnection) -> None:
    for message in connection:
        if message == "leave":
            connection.close(4002, "as asked")
            return
        connection.send(message)


@pytest.fixture(scope="module")
def sockets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    folder = tmp_path_factory.mktemp("websockets")
    with (
        websockets.sync.server.serve(echo, "127.0.0.1", 0, max_size=None) as server,
        RecorderEnd(folder / "capture.sock"),
    ):
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        port = server.socket.getsockname()[1]
        with tap_process(port, folder) as (_, tapped):
            yield Addresses(f"ws://127.0.0.1:{port}", f"ws://127.0.0.1:{tapped}")
        server.shutdown()
        thread.join(10)


def talk(address: str, compression: str | None) -> list[Any]:
    """Echoes, pongs and both sides' close codes, as the client saw them."""
    seen: list[Any] = []
    with websockets.sync.client.connect(address, max_size=None, compression=compression) as connection:
        for size in (0, 1, 125, 126, 65_535, 65_536, 1 << 20):
            connection.send(BYTES[:size])
            seen.append(connection.recv(SECONDS))
        connection.send("ü" * 1000)
        seen.append(connection.recv(SECONDS))
        connection.send([b"in ", b"frag", b"ments"])
        seen += [connection.recv(SECONDS), connection.ping(b"still there?").wait(SECONDS)]
        connection.close(4001, "enough")
        seen += [connection.close_code, connection.close_reason]
    with websockets.sync.client.connect(address, compression=compression) as connection:
        connection.send("leave")
        with pytest.raises(websockets.exceptions.ConnectionClosedError):
            connection.recv(SECONDS)
        seen += [connection.close_code, connection.close_reason]
    return seen


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_a_websocket_talks_the_same_through_the_tap(sockets: Addresses, compression: str | None) -> None:
    direct, tapped = talk(sockets.direct, compression), talk(sockets.tapped, compression)
    assert tapped == direct
    assert tapped[6] == BYTES
    assert tapped[7:] == ["ü" * 1000, b"in fragments", True, 4001, "enough", 4002, "as asked"]


def test_many_websockets_at_once_keep_to_themselves(sockets: Addresses) -> None:
    failed: list[int] = []

    def alone(number: int) -> None:
        with websockets.sync.client.connect(sockets.tapped) as connection:
            for turn in range(20):
                connection.send(f"{number}/{turn}")
                if connection.recv(SECONDS) != f"{number}/{turn}":
                    failed.append(number)

    threads = [threading.Thread(target=alone, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert failed == []
