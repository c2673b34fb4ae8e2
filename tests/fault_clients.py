"""The fault rounds' clients: numbered requests over kept and over new connections, and what became of each.

In a thread with an event loop of its own. A request counts as sent once it is written; a connection that is refused has
sent nothing.
"""

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import uvloop
from fault_predictor import request_body, response_body

LASTING, PASSING = 8, 4  # connections: kept as long as they can be, and opened anew after a few requests
PAUSE = 0.025  # seconds, mean, between an answer and the next request
PATIENCE = 20.0  # seconds for an answer
AGAIN = 0.02  # seconds after a failure
HEAD = (
    b"POST /v2/models/echo/infer HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n"
    b"x-request-id: n-%d\r\ncontent-length: %d\r\n\r\n"
)


@dataclass(slots=True)
class Asked:
    """One request, times monotonic: `status` 0 while there is no whole answer, `what` says why there is none."""

    number: int
    opened: float  # when its connection was begun
    began: float
    ended: float = 0.0
    status: int = 0
    what: str = ""

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass(slots=True)
class Ledger:
    """What the clients saw in one round."""

    asked: list[Asked] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)  # moments a connection was refused
    wrong: list[int] = field(default_factory=list)  # numbers answered with something else

    @property
    def answered(self) -> list[Asked]:
        return [one for one in self.asked if one.status]

    @property
    def failed(self) -> list[Asked]:
        return [one for one in self.asked if one.status != 200]

    def in_flight(self, at: float, since: float = 0.0) -> int:
        """Requests under way at a moment, or answered no longer than `since` seconds before."""
        # The list grows while a fault's thread counts.
        return sum(1 for one in list(self.asked) if one.began <= at and (not one.ended or one.ended >= at - since))

    def quantile(self, share: float) -> float:
        """A quantile of the seconds that good answers took."""
        found = sorted(one.seconds for one in self.asked if one.status == 200)
        return found[min(len(found) - 1, int(share * len(found)))] if found else 0.0


class Clients:
    """`begin` a round's traffic, `end` it: then every request has its answer or its failure."""

    def __init__(self, port: int, seed: int) -> None:
        self._port, self._seed = port, seed
        self._numbers = itertools.count(1)
        self._rounds = 0
        self.ledger = Ledger()

    def begin(self) -> Ledger:
        self.ledger = Ledger()
        self._rounds += 1
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clients", daemon=True)
        self._thread.start()
        return self.ledger

    def end(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE + 10)
        assert not self._thread.is_alive(), "the clients do not end"

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._all())

    async def _all(self) -> None:
        chance = random.Random(f"{self._seed}-{self._rounds}")
        async with asyncio.TaskGroup() as group:
            for lasting in (True,) * LASTING + (False,) * PASSING:
                group.create_task(self._client(lasting, random.Random(chance.random())))

    async def _client(self, lasting: bool, chance: random.Random) -> None:
        while not self._stop.is_set():
            opened = time.monotonic()
            try:
                async with asyncio.timeout(PATIENCE):
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:  # TimeoutError is one
                self.ledger.refused.append(opened)
                await asyncio.sleep(AGAIN)
                continue
            await self._talk(reader, writer, opened, range(1 << 30) if lasting else range(chance.randint(1, 6)), chance)

    async def _talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, opened: float, turns: Iterable[int],
        chance: random.Random,
    ) -> None:  # fmt: skip
        for _ in turns:
            # A close that has been seen is no failure of a request: another connection is used.
            if self._stop.is_set() or reader.at_eof() or writer.transport.is_closing():
                break
            if not await self._ask(reader, writer, opened):
                await asyncio.sleep(AGAIN)
                break
            await asyncio.sleep(chance.expovariate(1 / PAUSE))
        writer.transport.abort()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, opened: float) -> bool:
        number = next(self._numbers)
        body = request_body(number)
        asked = Asked(number, opened, time.monotonic())
        self.ledger.asked.append(asked)
        try:
            writer.write(HEAD % (number, len(body)) + body)
            async with asyncio.timeout(PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                answer = await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
        except (OSError, asyncio.IncompleteReadError) as error:
            asked.what = type(error).__name__
        else:
            asked.status = int(head[9:12])
            if asked.status == 200 and answer != response_body(body):
                self.ledger.wrong.append(number)
        asked.ended = time.monotonic()
        return asked.status == 200
