"""Generated connections played directly and through forwarders, and what differs.

Apart from the player: here are the routes, the figures of a run and the tap's account after it.
"""

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import uvloop
from byte_play import PATIENCE, Outcome, Route, Seen
from byte_scripts import Logged, Script
from tap_parts import RecorderEnd, TapProcess, tap_process, until

from servelens.contract.events import Exchange

LEAN_SHARE: Final = 5  # one script in so many is played through a tap that only measures, too
_WORKERS: Final = 40
_KEPT: Final = 50  # differences of a sort are kept whole
_BACKLOG: Final = 1024


@dataclass(frozen=True, slots=True)
class Difference:
    """A script that came out otherwise through `route`."""

    script: Script
    route: str
    what: str
    direct: Outcome
    through: Outcome

    def __str__(self) -> str:
        lines = [f"{self.script.name} ({self.script.kind}) through {self.route}: {self.what}"]
        for end in ("client", "server"):
            direct, through = getattr(self.direct, end), getattr(self.through, end)
            if (direct.got, direct.end) != (through.got, through.end):
                lines.append(f"  {end}: directly {_told(direct)}, through {_told(through)}")
        if self.direct.stuck != self.through.stuck:
            lines.append(f"  stuck at step: directly {self.direct.stuck}, through {self.through.stuck}")
        lines += [f"    {step}" for step in self.script.steps[-12:]]
        return "\n".join(lines)


def _told(seen: Seen) -> str:
    return f"{len(seen.got)} bytes then {seen.end}"


@dataclass
class Figures:
    """What a run came to."""

    exchanges: int = 0
    connections: int = 0
    plays: int = 0
    stuck: int = 0  # directly: the script is at fault
    kinds: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    differing: Counter[str] = field(default_factory=Counter)
    kept: list[Difference] = field(default_factory=list)
    logged: dict[str, Logged] = field(default_factory=dict)

    @property
    def differ(self) -> int:
        return self.differing.total()

    def add(self, script: Script, direct: Outcome, through: Mapping[str, Outcome]) -> None:
        self.exchanges += script.exchanges
        self.connections += 1
        self.plays += 1 + len(through)
        self.kinds[script.kind] += 1
        self.ends[f"{direct.client.end}/{direct.server.end}"] += 1
        self.stuck += direct.stuck >= 0
        self.logged |= {logged.requestid: logged for logged in script.logged}
        for route, outcome in through.items():
            if what := _differ(script, direct, outcome):
                self.differing[what] += 1
                if self.differing[what] < _KEPT:
                    self.kept.append(Difference(script, route, what, direct, outcome))


def _differ(script: Script, direct: Outcome, through: Outcome) -> str:
    """What differs, or empty: an end's bytes, its end (directly and through), a reset after EOF, where it got stuck."""
    found = []
    for name in ("client", "server") if script.speaks else ("client",):  # else nothing is due at the server
        here, there = getattr(direct, name), getattr(through, name)
        if here.got != there.got:
            found.append(f"{name}: bytes")
        if here.end != there.end:
            found.append(f"{name}: {here.end} as {there.end}")
        if here.late_reset != there.late_reset:
            found.append(f"{name}: {'not ' if here.late_reset else ''}told of a reset after EOF")
    if (direct.stuck < 0) != (through.stuck < 0):
        found.append("stuck")
    return ", ".join(found)


@dataclass(frozen=True, slots=True)
class Way:
    """A forwarder: where it listens, the listener it forwards to, and one script in how many goes through it."""

    listener: socket.socket
    port: int
    every: int = 1


def compare(
    scripts: Iterable[Script],
    ways: Mapping[str, Way],
    told: Callable[[int], object] = int,
    *,
    patience: float = PATIENCE,
) -> Figures:
    """Play every script directly and through the ways; `told` is called with the exchanges of each that is done."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, listening() as listener:
        direct = Route(listener, listener.getsockname()[1], eager=True, patience=patience)
        return runner.run(_compare(enumerate(scripts), direct, ways, told))


async def _compare(
    numbered: Iterator[tuple[int, Script]], direct: Route, ways: Mapping[str, Way], told: Callable[[int], object]
) -> Figures:
    figures = Figures()
    routes = {
        name: (Route(way.listener, way.port, eager=False, patience=direct.patience), way.every)
        for name, way in ways.items()
    }

    async def work() -> None:
        for number, script in numbered:
            chosen = {name: route for name, (route, every) in routes.items() if number % every == 0}
            first, *others = await asyncio.gather(*(route.play(script) for route in (direct, *chosen.values())))
            figures.add(script, first, dict(zip(chosen, others, strict=True)))
            told(script.exchanges)

    async with asyncio.TaskGroup() as group:
        for _ in range(_WORKERS):
            group.create_task(work())
    return figures


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    """A predictor's listener, whose connections the conductor takes."""
    with socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG) as listener:
        listener.setblocking(False)
        yield listener


@dataclass(frozen=True, slots=True)
class Taps:
    """A tap that logs and one that only measures, each before its listener."""

    ways: Mapping[str, Way]
    logging: TapProcess
    recorder: RecorderEnd

    def settled(self) -> "Account":
        """The account, once the last connection has ended and every frame has arrived."""
        until(lambda: self.logging.account()[0].open == 0, "no exchange left open", 30)
        counts, alive = self.logging.account()
        assert alive, "the tap has ended"
        until(lambda: self.recorder.count == counts.handed, f"{counts.handed} frames", 30)
        return Account(counts.offered, counts.handed, counts.reasons)


@dataclass(frozen=True, slots=True)
class Account:
    offered: int
    handed: int
    reasons: Mapping[str, int]

    @property
    def adds_up(self) -> bool:
        """Whether every exchange was handed over or has its reason."""
        return self.offered == self.handed + sum(self.reasons.values())


@contextlib.contextmanager
def taps(folder: Path) -> Iterator[Taps]:
    """Both taps as processes, and the logging one's recorder."""
    with (
        listening() as upstream,
        listening() as lean_upstream,
        RecorderEnd(folder / "capture.sock") as recorder,
        tap_process(upstream.getsockname()[1], folder, "--capture-memory", str(256 << 20)) as (tap, port),
        _lean_tap(lean_upstream.getsockname()[1]) as lean_port,
    ):
        ways = {"tap": Way(upstream, port), "lean tap": Way(lean_upstream, lean_port, LEAN_SHARE)}
        yield Taps(ways, tap, recorder)


@contextlib.contextmanager
def _lean_tap(upstream: int) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG) as listener:
        command = [sys.executable, "-m", "logger.tap", "--listen-fd", str(listener.fileno())]
        command += ["--upstream", f"127.0.0.1:{upstream}", "--namespace", "ns", "--inference-service", "income"]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()], stdin=subprocess.PIPE)
        try:
            yield listener.getsockname()[1]
        finally:
            process.kill()
            process.communicate()


def misrecorded(logged: Mapping[str, Logged], exchanges: Iterable[Exchange]) -> tuple[list[str], list[str]]:
    """Ids of known exchanges of which there is no record, and of those whose record says otherwise."""
    found = {exchange.requestid: exchange for exchange in exchanges if exchange.requestid in logged}
    wrong = [name for name, exchange in found.items() if _recorded(exchange) != logged[name]]
    return sorted(logged.keys() - found.keys()), sorted(wrong)


def _recorded(exchange: Exchange) -> Logged:
    asked, told = (half.body if half is not None else b"" for half in (exchange.request, exchange.response))
    return Logged(exchange.requestid, exchange.method, exchange.path, exchange.status or 0, asked, told)
