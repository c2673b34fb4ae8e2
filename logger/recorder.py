"""The recorder's process: `python -m logger.recorder`, started by the parent.

A process of its own, so that nothing done with a body can delay an inference: when it is slow or dead, the taps keep
what they have captured up to their memory budget and count the rest.
"""

import argparse
import asyncio
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, get_args

import uvloop
from prometheus_client import CollectorRegistry

from logger import ledger
from logger.accounting import DEFAULT_SLOT
from logger.child import stop_event
from logger.intake import RECORD_LIMIT, Intake
from logger.receiving import Receiver, listen
from logger.recording import Recorder
from logger.rules import rules_of
from logger.spool import SEGMENT_BYTES, Policy, Spool
from logger.tracing import Tracing
from servelens.contract.errors import ServeLensError, StateError
from servelens.contract.events import LogMode
from servelens.contract.identity import ModelIdentity
from servelens.contract.metrics import SERVICE, Instruments
from servelens.io import logs, otlp

log = logging.getLogger(__name__)

LOCK_PATIENCE: Final = 30.0  # seconds a predecessor may take to end
BATCH_BYTES: Final = 2 << 20


async def serve(arguments: argparse.Namespace) -> int:
    """The whole life of the process; its exit code."""
    loop = asyncio.get_running_loop()
    stop = stop_event(loop)
    spool = await _opened(arguments, stop)
    identity = ModelIdentity(
        arguments.namespace, arguments.inference_service, arguments.component, revision=arguments.revision
    )
    instruments = Instruments(CollectorRegistry())
    labels = {name: identity.labels()[name] for name in SERVICE}
    tracing = Tracing.of(arguments, identity, instruments)
    withheld = instruments["servelens_logger_withheld_total"]
    rules_errors = instruments["servelens_task_errors_total"].labels(task="recorder.rules")
    intake = Intake(
        identity, arguments.log_mode, arguments.record_bytes, batch_bytes=min(BATCH_BYTES, spool.segment_bytes // 4),
        rules=rules_of(arguments.rules, arguments.redaction_key, lambda _: rules_errors.inc()),
        endpoint=arguments.endpoint,
        on_withheld=lambda reason: withheld.labels(**labels, reason=reason).inc(),
        trace=tracing.trace if tracing else None,
    )  # fmt: skip
    recorder = Recorder(
        spool, intake, arguments.accounts, identity, instruments,
        slot_seconds=arguments.accounting_seconds,
    )  # fmt: skip
    server = await loop.create_unix_server(lambda: Receiver(recorder), sock=listen(arguments.capture_socket))
    log.info("recording", extra={"tapid": spool.state.tapid, "row": spool.state.seq})
    await recorder.run(stop)
    server.close()
    if not recorder.broken.is_set():
        await recorder.finish()
    spool.close()
    if tracing is not None:
        tracing.close()
    log.info("ended", extra={"row": spool.state.seq, "spooled": spool.state.spooled})
    return int(recorder.broken.is_set())


async def _opened(arguments: argparse.Namespace, stop: asyncio.Event) -> Spool:
    """The spool, once a predecessor has let go of it."""
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            return Spool(
                arguments.spool, arguments.spool_bytes, arguments.spool_policy,
                segment_bytes=arguments.segment_bytes, handed=ledger.handed_over(arguments.accounts),
            )  # fmt: skip
        except StateError:
            if time.monotonic() > deadline or stop.is_set():
                raise
        await asyncio.sleep(0.1)


def parser() -> argparse.ArgumentParser:
    """The flags the parent hands on."""
    made = argparse.ArgumentParser("logger.recorder")
    flags: Sequence[tuple[str, dict[str, Any]]] = (
        ("--capture-socket", {"type": Path, "required": True}),
        ("--accounts", {"type": Path, "required": True}),
        ("--spool", {"type": Path, "required": True}),
        ("--spool-bytes", {"type": int, "default": 512 << 20}),
        ("--spool-policy", {"choices": get_args(Policy), "default": "drop-new"}),
        ("--segment-bytes", {"type": int, "default": SEGMENT_BYTES}),
        ("--record-bytes", {"type": int, "default": RECORD_LIMIT}),
        ("--namespace", {"default": ""}),
        ("--inference-service", {"default": ""}),
        ("--component", {"default": "predictor"}),
        ("--revision", {"default": ""}),
        ("--endpoint", {"default": ""}),
        ("--rules", {"type": Path}),
        ("--redaction-key", {"type": Path}),
        ("--log-mode", {"choices": get_args(LogMode), "default": "exchange"}),
        ("--accounting-seconds", {"type": float, "default": DEFAULT_SLOT}),
    )
    for flag, options in flags:
        made.add_argument(flag, **options)
    otlp.add_arguments(made)
    return made


def main() -> int:
    """Run until told to end; 1 if the parent should start another, 2 for a setting that is wrong."""
    logs.configure("recorder")
    arguments = parser().parse_args()
    os.umask(0o007)
    try:
        return asyncio.Runner(loop_factory=uvloop.new_event_loop).run(serve(arguments))
    except ServeLensError as error:
        log.error(str(error))  # noqa: TRY400 - it says what to do; the traceback would not
        return 1 if isinstance(error, StateError) else 2


if __name__ == "__main__":
    sys.exit(main())
