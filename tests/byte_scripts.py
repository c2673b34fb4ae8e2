"""A connection as a script: what each end does in turn, down to the piece of bytes and the way it ends.

Steps stand in one order for both ends, so that whatever is left of a script is one too: it can be shrunk by leaving
steps out. A step that waits does so until all that was put into the connection before it has arrived.
"""

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Final

CLIENT: Final = 0
SERVER: Final = 1
NAMES: Final = ("client", "server")

SEND: Final = "send"
HALF_CLOSE: Final = "half_close"  # no more is sent; what comes is still read
CLOSE: Final = "close"  # what comes later is answered with RST
RESET: Final = "reset"
DEAF: Final = "deaf"  # nothing is read any more, so that closing sends RST, as a server's that answers too early does


@dataclass(frozen=True, slots=True)
class Step:
    """One end's act. Without `wait` it follows the step before at once, as fast as the kernel takes bytes."""

    end: int
    act: str
    data: bytes = b""
    wait: bool = True

    def __str__(self) -> str:
        said = f" {self.data!r}" if len(self.data) <= 160 else f" {self.data[:120]!r}… ({len(self.data)} bytes)"
        return f"{NAMES[self.end]:6} {self.act}{said if self.data else ''}{'' if self.wait else '  (at once)'}"


@dataclass(frozen=True, slots=True)
class Logged:
    """What the recorder must get of an exchange that the script knows to be well-formed and complete."""

    requestid: str
    method: str
    path: str
    status: int
    request_body: bytes
    response_body: bytes


@dataclass(frozen=True, slots=True)
class Script:
    """One connection; `exchanges` are those it attempts, `logged` those of them whose record is known."""

    name: str
    kind: str
    steps: tuple[Step, ...]
    exchanges: int
    logged: tuple[Logged, ...] = ()

    @property
    def speaks(self) -> bool:
        """Whether the client sends a byte; the tap opens nothing upstream for one that sends none."""
        return any(step.end == CLIENT and step.act == SEND and step.data for step in self.steps)

    def literal(self) -> str:
        """The steps, to be pasted; `read` is the inverse."""
        return repr([(step.end, step.act, step.data, step.wait) for step in self.steps])


def read(literal: str, name: str = "pasted") -> Script:
    """A script from what `literal` wrote."""
    steps = tuple(Step(end, act, data, wait) for end, act, data, wait in ast.literal_eval(literal))
    return Script(name, "pasted", steps, 1)


# Where a stream of bytes is cut. None of these changes what is sent.


def whole(_: Random, data: bytes) -> list[bytes]:
    return [data]


def few(random: Random, data: bytes) -> list[bytes]:
    return at(data, [random.randrange(len(data) + 1) for _ in range(random.randrange(1, 5))])


def many(random: Random, data: bytes) -> list[bytes]:
    return at(data, [random.randrange(len(data) + 1) for _ in range(random.randrange(5, 30))])


def line_ends(random: Random, data: bytes) -> list[bytes]:
    """Between CR and LF, just before and just after."""
    found = [index for index in range(len(data[:4000])) if data[index : index + 1] == b"\r"]
    return at(data, [index + random.choice((0, 1, 1, 2)) for index in found[:40]])


def single(random: Random, data: bytes) -> list[bytes]:
    """One byte at a time, as long as that takes no ages."""
    start = random.randrange(max(1, len(data) - 250))
    return at(data, range(start, min(len(data), start + 250)))


def at(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The pieces between cuts; none is empty unless `data` is."""
    places = sorted({0, *cuts, len(data)})
    return [data[start:end] for start, end in pairwise(places) if end <= len(data)] or [data]


CUTS: Final = {whole: 10, few: 10, many: 3, line_ends: 3, single: 1}


class Draft:
    """A script while it is written, in one manner of cutting; `apart` has every piece wait for the one before."""

    def __init__(self, random: Random, cuts: object = None, *, apart: bool | None = None) -> None:
        self.random = random
        self._cut = cuts or random.choices(list(CUTS), weights=list(CUTS.values()))[0]
        self._apart = random.random() < 0.4 if apart is None else apart
        self.steps: list[Step] = []
        self.exchanges = 0
        self.logged: list[Logged] = []

    def say(self, end: int, data: bytes, *, wait: bool = True) -> None:
        """Send, in pieces."""
        for number, piece in enumerate(self._cut(self.random, data) if data else ()):  # type: ignore[operator]
            self.steps.append(Step(end, SEND, piece, self._apart if number else wait))

    def do(self, end: int, act: str, *, wait: bool = True) -> None:
        """Any other act."""
        self.steps.append(Step(end, act, b"", wait))

    def script(self, name: str, kind: str) -> Script:
        return Script(name, kind, tuple(self.steps), max(1, self.exchanges), tuple(self.logged))
