"""`servelens bridge`: CloudEvents and labels by HTTP into a spool, and a shipper that empties it into Kafka.

The process around `reception` and `inbox`: sockets, the spool, the child. Where Kafka is away it goes on taking events
until the spool is full; what it has answered with 202 is in the spool, and a SIGKILL at any moment loses none of it.
"""

import asyncio
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from logger import ledger
from logger import segment as segments
from logger.exposition import AccountCollector, told
from logger.inbox import Inbox
from logger.reception import Bounds, Reception
from logger.rules import rules_of
from logger.spool import Policy, Spool
from logger.tenants import Tenants, tenants_of
from servelens.contract.errors import StateError
from servelens.contract.identity import ModelIdentity
from servelens.contract.metrics import SERVICE, Instruments
from servelens.contract.topics import BRIDGE, DEFAULT_PARTITIONS, DEFAULT_PREFIX, ROW_TOPICS
from servelens.io import http
from servelens.io.kafka_settings import KafkaSettings, as_arguments
from servelens.io.processes import Child

log = logging.getLogger(__name__)

BACKLOG: Final = 4096
LOCK_PATIENCE: Final = 30.0  # seconds a predecessor may take to let go of the spool
WHO: Final = {name: ModelIdentity("", "", BRIDGE).labels()[name] for name in SERVICE}


@dataclass(frozen=True, slots=True)
class BridgeSettings:
    """What the bridge was told. Sizes in bytes, times in seconds."""

    kafka: KafkaSettings
    spool: Path
    listen: str = "0.0.0.0:8092"
    admin: str = "127.0.0.1:0"
    topic_prefix: str = DEFAULT_PREFIX
    tokens: Path | None = None
    rules: Path | None = None
    redaction_key: Path | None = None
    bounds: Bounds = field(default_factory=Bounds)
    spool_bytes: int = 512 << 20
    spool_policy: Policy = "drop-new"
    create_topics: bool = True
    partitions: int = DEFAULT_PARTITIONS
    grace_seconds: float = 10.0


class Bridge:
    """Serves until `stop` is set. `listening` and `admin` are addresses, known once `open` has returned."""

    def __init__(self, settings: BridgeSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings, self.clock = settings, clock
        self.stop = threading.Event()
        self.registry = CollectorRegistry()
        self.listening = self.admin = ""
        self._metrics = Path(tempfile.mkdtemp(prefix="servelens-metrics-"))
        self._instruments = Instruments(self.registry)

    def open(self) -> None:
        """Bind the sockets, take the spool, start the shipper, and serve."""
        settings, instruments = self.settings, self._instruments
        errors = instruments["servelens_task_errors_total"]
        rules_errors = errors.labels(task="bridge.rules")
        rules = rules_of(settings.rules, settings.redaction_key, lambda _: rules_errors.inc())
        tenants = self._tenants()
        settings.spool.mkdir(parents=True, exist_ok=True)
        bound, admin = http.bind(settings.listen, "--listen", BACKLOG), http.bind(settings.admin, "--admin")
        self.listening, self.admin = http.address_of(bound), http.address_of(admin)
        withheld = instruments["servelens_logger_withheld_total"]
        self._inbox = Inbox(
            self._opened(),
            rules,
            lambda reason: withheld.labels(**WHO, reason=reason).inc(),
            lambda task: errors.labels(task=task).inc(),
        )
        MultiProcessCollector(self.registry, path=str(self._metrics))  # type: ignore[no-untyped-call]
        self.registry.register(AccountCollector(self._account, WHO))
        instruments["servelens_logger_restarts_total"].labels(**WHO, process="shipper")
        spool_bytes = instruments["servelens_logger_spool_bytes"].labels(**WHO)
        spool_bytes.set_function(lambda: segments.bytes_in(settings.spool))
        self._shipper = self._child()
        self._shipper.start(self.clock())
        reception = Reception(self._inbox, tenants, instruments, settings.bounds)
        self._server = _Serving(reception, self._inbox, bound)
        self._admin = http.Server(http.app(self.registry, self._unready, [Route("/spool", self._spool)]), admin)
        self._server.start()
        self._admin.start()

    def _tenants(self) -> Callable[[], Tenants] | None:
        if self.settings.tokens is None:
            log.warning("no --tokens: whoever reaches the port may send for every namespace")
            return None
        errors = self._instruments["servelens_task_errors_total"].labels(task="bridge.tokens")
        return tenants_of(self.settings.tokens, on_error=lambda _: errors.inc()).current

    def _opened(self) -> Spool:
        settings, deadline = self.settings, self.clock() + LOCK_PATIENCE

        def given_up(seconds: float) -> bool:
            return self.stop.wait(seconds) or self.clock() > deadline

        return Spool(settings.spool, settings.spool_bytes, settings.spool_policy, handed={}, given_up=given_up)

    def _child(self) -> Child:
        settings = self.settings
        flags: Mapping[str, Any] = {
            "--spool": settings.spool,
            "--topic-prefix": settings.topic_prefix,
            "--partitions": settings.partitions,
            "--rows": ",".join(ROW_TOPICS),
            "--grace-seconds": settings.grace_seconds,
            "--component": BRIDGE,
        }
        words = [str(word) for flag in flags.items() for word in flag]
        words.append("--create-topics" if settings.create_topics else "--no-create-topics")
        command = [sys.executable, "-m", "logger.shipper", *words, *as_arguments(settings.kafka)]
        return Child("shipper", command, {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(self._metrics)})

    def run(self, pause: float = 0.05) -> None:
        """Keep the shipper alive until told to stop; then take no more, commit, and let it ship what is left."""
        while not self.stop.wait(pause):
            dead = self._shipper.keep(self.clock())
            if dead is not None:
                mark_process_dead(dead, str(self._metrics))  # type: ignore[no-untyped-call]
                self._instruments["servelens_logger_restarts_total"].labels(**WHO, process="shipper").inc()
        self._server.stop(self.settings.grace_seconds)
        self._shipper.stop(self.settings.grace_seconds + 2)
        self._admin.stop()
        shutil.rmtree(self._metrics, ignore_errors=True)

    def _account(self) -> Any:
        return ledger.summarise(self.settings.spool, self.settings.spool / "taps")

    def _unready(self) -> str | None:
        trouble = self._inbox.trouble
        return f"the spool takes nothing: {trouble}" if trouble else None

    async def _spool(self, _: Request) -> Response:
        return http.json_response(told(await run_in_threadpool(self._account), [self._shipper]))


class _Serving:
    """uvicorn with the reception, in a thread and on a loop of its own, which also is the inbox's."""

    def __init__(self, reception: Reception, inbox: Inbox, bound: Any) -> None:
        config = uvicorn.Config(
            reception, log_config=None, access_log=False, lifespan="off", timeout_keep_alive=60, backlog=BACKLOG,
            server_header=False, date_header=False,
        )  # fmt: skip
        self._server, self._inbox, self._bound = uvicorn.Server(config), inbox, bound
        self._thread = threading.Thread(target=self._run, name="reception", daemon=True)

    def _run(self) -> None:
        asyncio.Runner(loop_factory=self._server.config.get_loop_factory()).run(self._serve())

    async def _serve(self) -> None:
        tidying = asyncio.get_running_loop().create_task(self._inbox.tidy())
        await self._server.serve(sockets=[self._bound])
        tidying.cancel()
        try:
            self._inbox.close()
        except (StateError, OSError) as error:
            log.error("spool not closed in order", extra={"problem": str(error)})  # noqa: TRY400

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self, grace: float) -> None:
        """Finish open requests and commit what they brought."""
        self._server.should_exit = True
        self._thread.join(grace)
