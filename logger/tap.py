"""The tap process: accepts on the parent's socket, forwards to the predictor, and hands what it saw to the recorder.

Apart from the recorder so that no work on a payload ever delays one. Started by `logger.parent` as
`python -m logger.tap`; ends on SIGTERM or with its parent: it stops accepting, lets open exchanges finish, and waits
until the recorder has committed the last frame, each within the drain time.
"""

import argparse
import asyncio
import logging
import os
import random
import socket
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import uvloop
from prometheus_client import CollectorRegistry

from logger.account import AccountFile
from logger.budget import DEFAULT_LIMIT, Budget
from logger.capture import MAX_FRAME
from logger.child import stop_event
from logger.forward import SWEEPS, Forwarding
from logger.handover import Handover, nobody
from logger.http1 import DEFAULT_CAP
from logger.later import Later
from logger.link import Link
from logger.red import Red
from logger.request_ids import RequestIds
from logger.upstream import Upstream
from servelens.contract.errors import ConfigError
from servelens.contract.identity import new_exchange_id
from servelens.contract.metrics import Instruments
from servelens.contract.synthetic import verifier
from servelens.contract.tracecontext import new_trace
from servelens.io.keys import read_key
from servelens.io.logs import configure

log = logging.getLogger(__name__)

_BACKLOG: Final = 4096
_AGAIN_SECONDS: Final = 1.0  # until another look whether the volume takes the account file
_FLUSH_SECONDS: Final = 0.25  # how old the RED metrics may be
_FLUSH_SHARE: Final = 0.1  # of the drain time, kept for the link


@dataclass(frozen=True, slots=True)
class TapSettings:
    """Sizes in bytes, times in seconds. Without a capture socket exchanges are measured, and nothing is logged."""

    upstream: Upstream
    namespace: str
    inference_service: str
    component: str = "predictor"
    capture_socket: Path | None = None
    accounts: Path | None = None
    capture_memory: int = DEFAULT_LIMIT
    body_cap: int = DEFAULT_CAP
    on_unparsable: str = "blind"
    connect_timeout: float = 5.0
    max_connections: int = 4096
    idle_seconds: float = 600.0
    drain_seconds: float = 10.0
    synthetic_key: Path | None = None
    add_request_id: bool = False
    trace_ratio: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.body_cap <= MAX_FRAME // 4:
            remedy = f"A body of at most {MAX_FRAME // 4} bytes can be kept."
            raise ConfigError("--body-cap", f"{self.body_cap} is out of range", remedy)
        if self.capture_socket is not None and self.accounts is None:
            raise ConfigError("--accounts", "is missing", "Name the folder the recorder reads account files from.")

    def service(self) -> dict[str, str]:
        """The identity labels of every metric."""
        return {
            "namespace": self.namespace,
            "inferenceservice": self.inference_service,
            "component": self.component,
        }


class Tap:
    """One tap on a bound socket. `await start()`, then `await stop()`; both on the same loop."""

    def __init__(self, settings: TapSettings, listener: socket.socket, registry: CollectorRegistry) -> None:
        self._settings, self._listener = settings, listener
        self._budget = Budget(settings.capture_memory)
        self._red = Red(Instruments(registry), settings.service())
        self.stream = f"{uuid.uuid4().hex}-{os.getpid()}"
        self.account: AccountFile | None = None
        self._link: Link | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Serve from here on."""
        settings = self._settings
        synthetic = verifier(read_key(settings.synthetic_key)) if settings.synthetic_key else nobody
        later = Later()
        handover = Handover(self._red, self._budget, None, synthetic, tick_ns=later.tick)
        capture, accounts = settings.capture_socket, settings.accounts
        self._shared = Forwarding(
            upstream=settings.upstream,
            watch=handover,
            budget=self._budget,
            red=self._red,
            later=later,
            cap=settings.body_cap,
            lean=capture is None or accounts is None,
            connect_timeout=settings.connect_timeout,
            close_unparsable=settings.on_unparsable == "close",
            max_connections=settings.max_connections,
            request_ids=request_ids(settings.trace_ratio) if settings.add_request_id else None,
        )
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self._publish()))
        if settings.idle_seconds:
            self._tasks.append(loop.create_task(self._sweep(settings.idle_seconds)))
        if capture is not None and accounts is not None:
            opened = partial(self._open_link, handover, capture, accounts)
            if not opened():
                self._tasks.append(loop.create_task(_again(opened)))
        self._server = await loop.create_server(self._shared.accept, sock=self._listener, backlog=_BACKLOG)

    def _open_link(self, handover: Handover, capture_socket: Path, accounts: Path) -> bool:
        """Log from here on; False where the account's file cannot be made: a full volume stops no inference."""
        try:
            self.account = AccountFile(accounts, self.stream)
        except OSError as error:
            log.error("no account file: nothing is logged until there is", extra={"problem": error.strerror})  # noqa: TRY400
            self._red.task_error("account")
            handover.expecting = True
            return False
        self._link = Link(capture_socket, self.stream, self._budget, lambda: self._red.task_error("link"))
        handover.log_to(self.account, self._link)
        self._tasks.append(asyncio.get_running_loop().create_task(self._link.run()))
        return True

    def publish(self) -> None:
        """Bring the metrics up to date."""
        self._red.flush(self._budget.used)

    async def _publish(self) -> None:
        while True:
            self.publish()
            await asyncio.sleep(_FLUSH_SECONDS)

    async def _sweep(self, idle_seconds: float) -> None:
        while True:
            await asyncio.sleep(idle_seconds / SWEEPS)
            self._shared.sweep()

    async def stop(self) -> None:
        """Accept no more; let exchanges end and frames be committed, within the drain time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.drain_seconds
        self._server.close()
        await self._shared.drain(self._settings.drain_seconds * (1 - _FLUSH_SHARE))
        await self._flush(deadline - loop.time())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.publish()
        if self.account is not None:
            self.account.close()

    async def _flush(self, seconds: float) -> None:
        if self._link is None:
            return
        try:
            await asyncio.wait_for(self._link.flush(), seconds)
        except TimeoutError:
            log.warning("the recorder has not committed all frames in time", extra={"waiting": self._link.waiting})


async def _again(done: Callable[[], bool]) -> None:
    await asyncio.sleep(_AGAIN_SECONDS)
    while not done():  # noqa: ASYNC110  nobody tells when a volume has room again
        await asyncio.sleep(_AGAIN_SECONDS)


def request_ids(ratio: float) -> Callable[[], RequestIds]:
    """What makes an inserter for each connection; `ratio` is the share of traces marked as sampled."""
    bits = random.Random(os.urandom(32)).getrandbits  # noqa: S311  ids, no secrets

    def request_id() -> str:
        return new_exchange_id(random_bits=bits)

    return lambda: RequestIds(request_id, lambda: new_trace(bits, ratio).traceparent)


async def serve(settings: TapSettings, listener: socket.socket) -> None:
    """Run a tap until the process is told to stop."""
    stop = stop_event(asyncio.get_running_loop())
    tap = Tap(settings, listener, CollectorRegistry())
    await tap.start()
    await stop.wait()
    await tap.stop()


def _parse(argv: Sequence[str] | None) -> tuple[TapSettings, int]:
    parser = argparse.ArgumentParser(prog="logger.tap", allow_abbrev=False)
    parser.add_argument("--listen-fd", type=int, required=True)
    parser.add_argument("--upstream", type=Upstream.parse, required=True, metavar="HOST:PORT")
    parser.add_argument("--capture-socket", type=Path)
    parser.add_argument("--accounts", type=Path)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--inference-service", required=True)
    parser.add_argument("--component", default="predictor")
    parser.add_argument("--capture-memory", type=int, default=DEFAULT_LIMIT)
    parser.add_argument("--body-cap", type=int, default=DEFAULT_CAP)
    parser.add_argument("--on-unparsable", choices=("blind", "close"), default="blind")
    parser.add_argument("--connect-timeout", type=float, default=5.0)
    parser.add_argument("--max-connections", type=int, default=4096)
    parser.add_argument("--idle-seconds", type=float, default=600.0)
    parser.add_argument("--drain-seconds", type=float, default=10.0)
    parser.add_argument("--synthetic-key", type=Path)
    parser.add_argument("--add-request-id", action="store_true")
    parser.add_argument("--trace-ratio", type=float, default=0.0)
    values = vars(parser.parse_args(argv))
    listen_fd = values.pop("listen_fd")
    return TapSettings(**values), listen_fd


def main(argv: Sequence[str] | None = None) -> int:
    """The process: exit code 0 after a graceful end, 2 for a setting that is wrong."""
    configure("tap")
    try:
        settings, listen_fd = _parse(argv)
        with (
            socket.socket(fileno=listen_fd) as listener,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(serve(settings, listener))
    except ConfigError as error:
        log.error(str(error))  # noqa: TRY400  the operator's mistake, no traceback
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
