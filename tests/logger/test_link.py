import asyncio
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop
from tap_parts import Predictor, RecorderEnd, read_all, read_exactly, until

from logger.budget import Budget
from logger.capture import ACK, hello
from logger.link import Link


class Sender:
    """Takes from the budget and sends, as the tap does."""

    def __init__(self, path: Path, limit: int = 1 << 24) -> None:
        self.budget, self.errors, self.sent = Budget(limit), 0, list[bytes]()
        self.link = Link(path, "stream-1", self.budget, self._error)

    def _error(self) -> None:
        self.errors += 1

    def send(self, *payloads: bytes) -> None:
        for payload in payloads:
            assert self.budget.take(self.link.cost(payload))
            self.sent.append(payload)
            self.link.send(payload)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.get_running_loop().create_task(self.link.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(main(), 20)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded())


def test_frames_arrive_in_order_and_give_their_memory_back(tmp_path: Path) -> None:
    with RecorderEnd(tmp_path / "s") as recorder:

        async def main() -> None:
            sender = Sender(recorder.path)
            async with sender.running():
                for number in range(2000):
                    sender.send(b"%d" % number * (number % 50))
                    if not number % 100:
                        await asyncio.sleep(0.002)
                await sender.link.flush()
            assert recorder.frames == {"stream-1": sender.sent}
            assert recorder.received == list(range(1, 2001))
            assert (sender.budget.used, sender.link.waiting) == (0, 0)

        run(main)


def test_what_is_sent_before_any_recorder_is_there_waits_for_it(tmp_path: Path) -> None:
    recorder = RecorderEnd(tmp_path / "s")

    async def main() -> None:
        sender = Sender(recorder.path)
        async with sender.running():
            sender.send(b"a", b"b")
            await asyncio.sleep(0.2)
            assert sender.budget.used == sender.link.cost(b"a") + sender.link.cost(b"b")
            with recorder:
                sender.send(b"c")
                await sender.link.flush()
                assert recorder.frames == {"stream-1": [b"a", b"b", b"c"]}

    run(main)


def test_frames_of_a_recorder_killed_before_its_commit_are_sent_again(tmp_path: Path) -> None:
    recorder = RecorderEnd(tmp_path / "s")

    async def main() -> None:
        sender = Sender(recorder.path)
        async with sender.running():
            with recorder:
                sender.send(b"a")
                await sender.link.flush()
                recorder.committing = False
                sender.send(b"b", b"c")
                await asyncio.to_thread(until, lambda: recorder.received == [1, 2, 3], "all frames sent")
            assert sender.link.waiting == 2
            sender.send(b"d")
            recorder.committing = True
            with recorder:
                await sender.link.flush()
            assert recorder.frames == {"stream-1": [b"a", b"b", b"c", b"d"]}
            assert recorder.received == [1, 2, 3, 2, 3, 4]

    run(main)


def test_no_frame_is_lost_or_committed_twice_however_often_the_recorder_dies(tmp_path: Path) -> None:
    recorder, chance = RecorderEnd(tmp_path / "s"), random.Random(7)

    async def main() -> None:
        sender = Sender(recorder.path)
        async with sender.running():
            for round_ in range(12):
                recorder.start()
                for _ in range(chance.randrange(1, 60)):
                    sender.send(bytes([chance.randrange(256)]) * chance.choice((1, 100, 100_000)))
                    await asyncio.sleep(chance.choice((0, 0, 0.002)))
                await asyncio.sleep(chance.random() * 0.1)
                recorder.committing = round_ % 3 != 0
                recorder.kill()
            recorder.committing = True
            with recorder:
                await sender.link.flush()
            assert recorder.frames == {"stream-1": sender.sent}
            assert (sender.budget.used, sender.errors) == (0, 0)

    run(main)


def test_a_recorder_that_does_not_read_holds_nobody_up(tmp_path: Path) -> None:
    connected, go = threading.Event(), threading.Event()
    greeting = len(hello("stream-1"))

    def script(connection: socket.socket, _: int) -> None:
        connection.sendall(ACK.pack(0))
        connected.set()
        assert go.wait(10)
        read_exactly(connection, greeting + 160 * 100_012)
        connection.sendall(ACK.pack(160))
        connection.recv(1)

    async def main() -> None:
        sender = Sender(tmp_path / "s")
        async with sender.running():
            await asyncio.to_thread(connected.wait, 5)
            started = time.monotonic()
            sender.send(*[b"x" * 100_000] * 160)
            assert time.monotonic() - started < 1
            await asyncio.sleep(0.05)
            assert sender.link.waiting == 160
            go.set()
            await sender.link.flush()

    with Predictor(script, tmp_path / "s"):
        run(main)


def test_commits_may_come_in_any_pieces_and_a_late_one_covers_the_rest(tmp_path: Path) -> None:
    def script(connection: socket.socket, _: int) -> None:
        for piece in (ACK.pack(0)[:3], ACK.pack(0)[3:] + ACK.pack(1)[:1], ACK.pack(1)[1:] + ACK.pack(3)):
            connection.sendall(piece)
            time.sleep(0.02)
        read_all(connection)

    async def main() -> None:
        sender = Sender(tmp_path / "s")
        sender.send(b"a", b"b", b"c")
        async with sender.running():
            await sender.link.flush()
            assert (sender.budget.used, sender.errors) == (0, 0)

    with Predictor(script, tmp_path / "s"):
        run(main)


def test_a_commit_of_what_was_never_sent_is_an_error_and_gives_nothing_away(tmp_path: Path) -> None:
    again = threading.Event()

    def script(connection: socket.socket, number: int) -> None:
        connection.sendall(ACK.pack(9 if number == 1 else 0))
        if number == 2:
            again.set()
        read_all(connection)

    async def main() -> None:
        sender = Sender(tmp_path / "s")
        sender.send(b"a")
        async with sender.running():
            assert await asyncio.to_thread(again.wait, 5)
            assert (sender.errors, sender.link.waiting) == (1, 1)

    with Predictor(script, tmp_path / "s"):
        run(main)


def test_it_backs_off_from_a_recorder_that_hangs_up_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with Sender(tmp_path / "s").running():
            await asyncio.sleep(0.9)

    with Predictor(lambda _, __: None, tmp_path / "s") as recorder:
        run(main)
        assert 3 <= recorder.connections <= 6  # at 0, 0.05, 0.15, 0.35, 0.75 s
