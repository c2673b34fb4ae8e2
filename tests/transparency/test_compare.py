"""The tap passes on every byte and every end, as generated connections played directly and through it show.

The short form: the long one is `compare.py`. The forwarders at fault show that a difference would be seen.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Final

import pytest
import uvloop
from byte_compare import Figures, Taps, Way, compare, listening, misrecorded, taps
from byte_kinds import KINDS, scripts
from byte_play import EOF, OPEN, RST
from byte_scripts import CLIENT, CLOSE, HALF_CLOSE, RESET, SEND, SERVER, Script, Step, read

SEED: Final = 20_240_101
EXCHANGES: Final = 8000


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Taps]:
    with taps(tmp_path_factory.mktemp("taps")) as started:
        yield started


@pytest.fixture(scope="module")
def figures(running: Taps) -> Figures:
    return compare(scripts(SEED, EXCHANGES), running.ways)


def test_nothing_differs_through_the_tap(figures: Figures) -> None:
    assert figures.exchanges >= EXCHANGES
    assert set(figures.kinds) == {kind.__name__ for kind in KINDS}
    assert not figures.kept, "\n".join(map(str, figures.kept))
    assert figures.differ == 0


def test_the_direct_runs_end_in_every_way(figures: Figures) -> None:
    assert figures.stuck == 0
    assert {f"{EOF}/{EOF}", f"{EOF}/{OPEN}", f"{OPEN}/{EOF}", f"{RST}/{OPEN}", f"{OPEN}/{RST}"} <= set(figures.ends)


def test_the_account_adds_up_and_each_known_exchange_has_its_record(running: Taps, figures: Figures) -> None:
    account = running.settled()
    assert account.adds_up
    assert account.offered >= len(figures.logged) > EXCHANGES / 2
    assert account.reasons["over_budget"] == 0
    missing, wrong = misrecorded(figures.logged, running.recorder.exchanges)
    assert (missing, wrong) == ([], [])


def test_the_same_seed_gives_the_same_scripts() -> None:
    assert list(scripts(7, 200)) == list(scripts(7, 200))
    assert list(scripts(7, 200)) != list(scripts(8, 200))


def test_a_script_survives_being_written_down() -> None:
    script = next(scripts(SEED, 1))
    assert read(script.literal()).steps == script.steps


# A forwarder with a fault of its own.

_Change = Callable[[bytes], bytes]


class _Faulty:
    """Forwards as a tap would, in a thread; `change` spoils what goes to the client, `resets` are passed on or not."""

    def __init__(self, upstream: int, change: _Change, *, resets: bool) -> None:
        self._upstream, self._change, self._resets = upstream, change, resets
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = 0

    def __enter__(self) -> "_Faulty":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(1 << 16)
        there, up = await asyncio.open_connection("127.0.0.1", self._upstream)
        up.write(first)
        await asyncio.gather(self._pump(reader, up, bytes), self._pump(there, writer, self._change))
        for end in (up, writer):
            end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: _Change) -> None:
        with contextlib.suppress(OSError):
            try:
                while data := await reader.read(1 << 16):
                    writer.write(change(data))
            except ConnectionResetError:
                if self._resets:
                    linger = struct.pack("ii", 1, 0)
                    with writer.get_extra_info("socket").dup() as shared:
                        shared.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    writer.transport.abort()
                    return
            if not writer.is_closing():
                writer.write_eof()


ASK: Final = Step(CLIENT, SEND, b"GET / HTTP/1.1\r\n\r\n")
TELL: Final = Step(SERVER, SEND, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
ENDINGS: Final = {
    "server_closes": (Step(SERVER, CLOSE), Step(CLIENT, CLOSE)),
    "server_resets": (Step(SERVER, RESET),),
    "client_resets": (Step(CLIENT, RESET),),
    "half_closes": (Step(CLIENT, HALF_CLOSE), Step(SERVER, SEND, b"late"), Step(SERVER, HALF_CLOSE)),
}


def ending(how: str) -> Script:
    return Script(how, how, (ASK, TELL, *ENDINGS[how]), 1)


def without_one(data: bytes) -> bytes:
    return data[:-1]


@pytest.mark.parametrize(
    ("how", "change", "resets", "expected"),
    [
        ("server_closes", bytes, True, {}),
        ("server_resets", bytes, True, {}),
        ("client_resets", bytes, True, {}),
        ("half_closes", bytes, True, {}),
        ("server_closes", without_one, True, {"client: bytes, client: EOF as open, stuck": 1}),
        ("server_closes", bytes.swapcase, True, {"client: bytes": 1}),
        ("server_resets", bytes, False, {"client: RST as EOF": 1}),
        ("client_resets", bytes, False, {"server: RST as EOF": 1}),
    ],
)
def test_a_forwarder_at_fault_is_caught(how: str, change: _Change, resets: bool, expected: dict[str, int]) -> None:
    with listening() as listener, _Faulty(listener.getsockname()[1], change, resets=resets) as faulty:
        figures = compare([ending(how)], {"faulty": Way(listener, faulty.port)}, patience=0.5)
    assert dict(figures.differing) == expected


@pytest.mark.parametrize("how", ENDINGS)
def test_each_end_is_passed_on(running: Taps, how: str) -> None:
    assert dict(compare([ending(how)], running.ways).differing) == {}


def test_white_space_after_an_id_is_no_part_of_it(running: Taps) -> None:
    ask = Step(CLIENT, SEND, b"GET / HTTP/1.1\r\nX-Request-Id: spaced-1 \t\r\n\r\n")
    script = Script("spaced", "spaced", (ask, TELL, Step(CLIENT, CLOSE)), 1)
    compare([script], {"tap": running.ways["tap"]})
    running.settled()
    assert "spaced-1" in {exchange.requestid for exchange in running.recorder.exchanges}
