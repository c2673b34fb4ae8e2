"""Plays a script over real sockets and tells what each end got and how its connection ended.

Apart from the scripts, which do no I/O, and from what a run compares. Both ends are conducted from one place, so that a
step that waits knows what has arrived at the other end. Where the kernel would let a race decide, no script gets near:
an end is closed, reset or made deaf only when nothing is under way, and nobody goes on before that has been noticed.
"""

import array
import asyncio
import errno
import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from byte_scripts import CLIENT, CLOSE, DEAF, HALF_CLOSE, RESET, SEND, SERVER, Script, Step

EOF: Final = "EOF"
RST: Final = "RST"
OPEN: Final = "open"
ABSENT: Final = "absent"  # no connection was opened, and none was due
PATIENCE: Final = 6.0  # seconds without any progress, after which a step is stuck
_POLL: Final = 0.004
GRACE: Final = 0.25  # seconds after the last step, for a reset that follows an EOF, and for what should not come
_LARGEST: Final = 1 << 18
_NO_LINGER: Final = struct.pack("ii", 1, 0)
_ACTIVE: Final = 48  # connections played at once


@dataclass(frozen=True, slots=True)
class Seen:
    """What one end read, its first end of reading, and whether after an EOF it was told of a reset."""

    got: bytes
    end: str
    late_reset: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """Both ends, and the step at which nothing moved any more (-1: none)."""

    client: Seen
    server: Seen
    stuck: int = -1


class End:
    """One end of a connection under a conductor; `moved` is called whenever it got something."""

    def __init__(self, connection: socket.socket, moved: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket, self._moved = connection, moved
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.got, self.put = bytearray(), 0
        self.end = OPEN
        self.broken = self.closed = self.deaf = self.finished = False
        self._waiting = bytearray()
        self._loop.add_reader(connection, self._readable)

    @property
    def arrived(self) -> int:
        """Bytes read, and for one that reads no more those that could be."""
        if not self.deaf:
            return len(self.got)
        unread = array.array("i", [0])
        fcntl.ioctl(self._socket, termios.FIONREAD, unread)
        return len(self.got) + unread[0]

    def do(self, step: Step) -> None:
        """Take the step; one that an end which is closed cannot take is left out, in every run alike."""
        if self.closed:
            return
        if step.act == SEND:
            if not self.finished:
                self.put += len(step.data)
                self._waiting += step.data
                self._flush()
        elif step.act == HALF_CLOSE:
            self.finished = True
            self._flush()
        elif step.act == DEAF:
            self.deaf = True
            self._loop.remove_reader(self._socket)
        else:
            self.close(reset=step.act == RESET)

    def close(self, *, reset: bool) -> None:
        """Let go of the socket."""
        if self.closed:
            return
        self.closed = self.finished = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._socket.close()

    @property
    def late_reset(self) -> bool:
        """Whether an end that has read EOF was told of a reset since.

        Not asked of one that has ended its own side too: there the connection is over, and it is a race whether an RST
        still comes for what was under way.
        """
        if self.finished or self.end != EOF:
            return False
        return self.broken or self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0

    def seen(self) -> Seen:
        return Seen(bytes(self.got), self.end, self.late_reset)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError:
            self._over(RST)
        else:
            self.got += data
            if not data:
                self._over(EOF)
        self._moved()

    def _over(self, how: str) -> None:
        self._loop.remove_reader(self._socket)
        if self.end == OPEN:
            self.end = how

    def _flush(self) -> None:
        try:
            while self._waiting:
                sent = self._socket.send(memoryview(self._waiting)[:_LARGEST])
                del self._waiting[:sent]
            if self.finished:
                self._socket.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            self._loop.add_writer(self._socket, self._flush)
            return
        except OSError as error:
            self._waiting.clear()
            self.broken = True
            if error.errno == errno.ECONNRESET and not self.deaf:
                self._over(RST)
            self._moved()
        self._loop.remove_writer(self._socket)


@dataclass
class Route:
    """A way from a client's socket to a listener: direct, or through something that forwards to it.

    `eager`: a connection reaches the listener before the client's first byte.
    """

    listener: socket.socket
    port: int
    eager: bool
    patience: float = PATIENCE
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_ACTIVE))

    async def play(self, script: Script) -> Outcome:
        """The script's outcome on this route."""
        async with self._slots:
            return await _Conductor(self, script).run()

    async def open(self, first: Callable[[socket.socket], None], *, waits: bool) -> socket.socket | None:
        """Connect, have the `first` byte sent, and take the connection that comes of it: one at a time."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            connection = socket.socket()
            connection.setblocking(False)
            await loop.sock_connect(connection, ("127.0.0.1", self.port))
            first(connection)
            if not waits:
                return None
            try:
                async with asyncio.timeout(self.patience):
                    return (await loop.sock_accept(self.listener))[0]
            except TimeoutError:
                return None


class _Conductor:
    def __init__(self, route: Route, script: Script) -> None:
        self._route, self._script = route, script
        self._steps = list(script.steps)
        self._moved = asyncio.Event()
        self._ends: dict[int, End] = {}

    async def run(self) -> Outcome:
        waits = self._script.speaks or self._route.eager
        accepted = await self._route.open(self._first, waits=waits)
        if accepted is not None:
            self._ends[SERVER] = End(accepted, self._moved.set)
        elif waits:
            return self._outcome(0)
        try:
            return self._outcome(await self._play())
        finally:
            for end in self._ends.values():
                end.close(reset=True)

    def _first(self, connection: socket.socket) -> None:
        self._ends[CLIENT] = End(connection, self._moved.set)
        if self._script.speaks:
            step = self._steps.pop(0)
            assert (step.end, step.act) == (CLIENT, SEND), f"{self._script.name}: the client speaks first"
            self._ends[CLIENT].do(step)

    async def _play(self) -> int:
        final = False  # the step before was one that must be noticed
        for number, step in enumerate(self._steps, len(self._script.steps) - len(self._steps)):
            decisive = step.act in (CLOSE, RESET, DEAF)
            if (step.wait or final or decisive) and not await self._quiet():
                return number
            if step.end in self._ends:
                self._ends[step.end].do(step)
            final = decisive
        if not await self._quiet():
            return len(self._script.steps)
        await asyncio.sleep(GRACE)
        return -1

    async def _quiet(self) -> bool:
        """Wait until nothing is under way; False if it gets stuck."""
        loop = asyncio.get_running_loop()
        before, deadline = -1, 0.0
        while not self._all_arrived():
            now = sum(end.arrived for end in self._ends.values() if not end.closed)
            if now != before:
                before, deadline = now, loop.time() + self._route.patience
            elif loop.time() >= deadline:
                return False
            self._moved.clear()
            deaf = any(end.deaf for end in self._ends.values())  # nobody tells what reaches it
            timer = loop.call_at(loop.time() + _POLL if deaf else deadline, self._moved.set)
            await self._moved.wait()
            timer.cancel()
        return True

    def _outcome(self, stuck: int) -> Outcome:
        client, server = (self._ends.get(end) for end in (CLIENT, SERVER))
        absent = Seen(b"", ABSENT)
        return Outcome(client.seen() if client else absent, server.seen() if server else absent, stuck)

    def _all_arrived(self) -> bool:
        if SERVER not in self._ends:
            client = self._ends[CLIENT]
            return client.closed or not client.finished or client.end != OPEN
        client, server = self._ends[CLIENT], self._ends[SERVER]
        return _arrived(client, server) and _arrived(server, client)


def _arrived(sender: End, receiver: End) -> bool:
    if receiver.closed or sender.broken:
        return True
    if receiver.end == OPEN and receiver.arrived != sender.put:
        return False
    return not sender.finished or receiver.deaf or receiver.end != OPEN
