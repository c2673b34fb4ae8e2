"""The shipper's process: `python -m logger.shipper`, started by the parent. One per spool, by a file lock.

It waits for Kafka and for the topic as long as it takes, while the spool grows; nothing waits for it.
"""

import argparse
import errno
import logging
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from kafka.errors import AuthorizationError, KafkaError, KafkaTimeoutError
from prometheus_client import CollectorRegistry

from logger import cursor as cursors
from logger.child import stop_flag
from logger.deliveries import Deliveries
from logger.refusal import is_refusal
from logger.shipping import Shipping
from logger.state import Cursor
from logger.tracing import Tracing
from servelens.contract.errors import BrokerError, ConfigError, ServeLensError
from servelens.contract.identity import ModelIdentity
from servelens.contract.metrics import Instruments
from servelens.contract.topics import DEFAULT_PARTITIONS, DEFAULT_PREFIX, ROW_TOPICS, Topics, TopicSpec, spooled_topics
from servelens.io import kafka, kafka_settings, logs, otlp, topics

log = logging.getLogger(__name__)

LOCK_PATIENCE: Final = 30.0  # seconds a predecessor may take to end
FIRST_BACK_OFF: Final = 0.1
LAST_BACK_OFF: Final = 5.0
BOOTSTRAP_MS: Final = 3000
PRODUCER: Final = {
    "acks": "all",
    "enable_idempotence": True,
    "allow_auto_create_topics": False,  # it would come with the broker's partition count, not with ours
    "batch_size": 256 << 10,
    "linger_ms": 5,
    "request_timeout_ms": 10_000,
    "delivery_timeout_ms": 30_000,
    "max_block_ms": 10_000,
}
_VOLUME: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
# The metric's reasons, the first that fits.
_REASONS: Final[tuple[tuple[Callable[[BaseException], bool], str], ...]] = (
    (is_refusal, "refused"),
    (lambda error: isinstance(error, OSError) and error.errno in _VOLUME, "spool"),
    (lambda error: isinstance(error, ConfigError), "topic_unfit"),
    (lambda error: isinstance(error, BrokerError | OSError), "broker_away"),
    (lambda error: isinstance(error, KafkaTimeoutError), "timeout"),
    (lambda error: isinstance(error, AuthorizationError), "unauthorized"),
    (lambda error: isinstance(error, KafkaError), "fatal"),
)


def reason_of(error: BaseException) -> str:
    """The `reason` label of a failed delivery."""
    return next((reason for fits, reason in _REASONS if fits(error)), "spool")


def ensure_topics(settings: kafka_settings.KafkaSettings, specs: Sequence[TopicSpec], create: bool) -> None:
    """See that the topics exist, creating them if told to, and have their partitions.

    BrokerError while one is missing or nobody answers, ConfigError while its partition count is another one.
    """
    seen = topics.partition_counts(settings, [spec.name for spec in specs])
    missing = [spec for spec in specs if not seen[spec.name]]
    if missing and create:
        topics.create(settings, missing)
        seen = topics.partition_counts(settings, [spec.name for spec in specs])
    for spec in specs:
        found = seen[spec.name]
        if not found:
            raise BrokerError(f"topic {spec.name} is missing; run servelens topics apply")
        if found != spec.partitions:
            problem = f"{spec.partitions}, but topic {spec.name} has {found}"
            raise ConfigError("--partitions", problem, f"Give --partitions {found}, or another --topic-prefix.")


class Shipper:
    """Sessions, one producer each, until told to stop. `make_producer` raises BrokerError while nobody answers."""

    def __init__(
        self,
        shipping: Shipping,
        prepare: Callable[[], None],
        make_producer: Callable[[], Any],
        count_error: Callable[[str], None],
        grace: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.shipping, self._prepare, self._make_producer = shipping, prepare, make_producer
        self._count_error, self._grace, self._clock = count_error, grace, clock
        self._deadline: float | None = None

    def run(self, stop: threading.Event) -> None:
        """Ship until stopped, and what is left then within the grace."""
        back_off = FIRST_BACK_OFF
        while True:
            before = self.shipping.cursor
            error = self._session(stop)
            if self._grace_left(stop) is not None and (error is None or not self._moved_on(before)):
                break
            back_off = FIRST_BACK_OFF if self._moved_on(before) else min(back_off * 2, LAST_BACK_OFF)
            stop.wait(back_off)
        self._say_what_remains()

    def _session(self, stop: threading.Event) -> BaseException | None:
        error: BaseException | None
        try:
            self._prepare()
            error = self.shipping.session(self._make_producer(), lambda: self._grace_left(stop))
        except Exception as caught:  # noqa: BLE001 - the top of the one task: counted, and tried again
            error = caught
        if error is not None:
            reason = reason_of(error)
            self._count_error(reason)
            log.warning("not delivered; trying again", extra={"reason": reason, "problem": str(error)})
        return error

    def _moved_on(self, before: Cursor) -> bool:
        return self.shipping.cursor != before

    def _grace_left(self, stop: threading.Event) -> float | None:
        if not stop.is_set():
            return None
        if self._deadline is None:
            self._deadline = self._clock() + self._grace
        return self._deadline - self._clock()

    def _say_what_remains(self) -> None:
        try:
            remaining: object = self.shipping.remaining()
        except sqlite3.Error:
            remaining = "unknown"
        log.info("ended", extra={"remaining": remaining, "row": self.shipping.cursor.seq})


def parser() -> argparse.ArgumentParser:
    """The flags the parent hands on."""
    made = argparse.ArgumentParser("logger.shipper")
    kafka_settings.add_arguments(made)
    made.add_argument("--spool", type=Path, required=True)
    made.add_argument("--topic-prefix", default=DEFAULT_PREFIX)
    made.add_argument("--partitions", type=int, default=DEFAULT_PARTITIONS)
    made.add_argument("--create-topics", action=argparse.BooleanOptionalAction, default=True)
    made.add_argument("--rows", default="", help="topics of its rows, comma-separated; payloads is the empty one")
    made.add_argument("--grace-seconds", type=float, default=10.0)
    made.add_argument("--namespace", default="")
    made.add_argument("--inference-service", default="")
    made.add_argument("--component", default="predictor")
    otlp.add_arguments(made)
    return made


def ship(arguments: argparse.Namespace) -> None:
    """The whole life of the process. StateError if another shipper keeps the spool."""
    stop = stop_flag()
    settings = replace(kafka_settings.from_arguments(arguments), bootstrap_timeout_ms=BOOTSTRAP_MS)
    settings.options()  # a wrong setting is told now, not retried
    cursors.wait_lock(arguments.spool, cursors.SHIPPER_LOCK, _patience(stop))
    instruments = Instruments(CollectorRegistry())
    errors = instruments["servelens_logger_ship_errors_total"]
    service = (arguments.namespace, arguments.inference_service, arguments.component)
    tracing = Tracing.of(arguments, ModelIdentity(*service), instruments)
    for reason in (*(reason for _, reason in _REASONS), "spool"):
        errors.labels(*service, reason)
    names, rows = Topics(arguments.topic_prefix), arguments.rows.split(",")
    specs = spooled_topics(arguments.topic_prefix, arguments.partitions, rows)
    deliveries = Deliveries(names.payloads, instruments, service, tracing.tracer.record if tracing else None)
    shipping = Shipping(arguments.spool, {row: ROW_TOPICS[row](names) for row in rows}, watch=deliveries)
    shipper = Shipper(
        shipping,
        lambda: ensure_topics(settings, specs, arguments.create_topics),
        lambda: kafka.producer(settings, **PRODUCER),
        lambda reason: errors.labels(*service, reason).inc(),
        arguments.grace_seconds,
    )
    log.info("shipping", extra={"row": shipping.cursor.seq, "shipped": shipping.cursor.shipped})
    shipper.run(stop)
    shipping.close()
    if tracing is not None:
        tracing.close()


def _patience(stop: threading.Event) -> Callable[[float], bool]:
    deadline = time.monotonic() + LOCK_PATIENCE
    return lambda seconds: stop.wait(seconds) or time.monotonic() > deadline


def main() -> int:
    """Run until told to end; 1 if the parent should start another, 2 for a setting that is wrong."""
    logs.configure("shipper")
    arguments = parser().parse_args()
    os.umask(0o007)
    try:
        ship(arguments)
    except (ServeLensError, OSError) as error:
        log.error(str(error))  # noqa: TRY400 - it says what to do; the traceback would not
        return 2 if isinstance(error, ConfigError | OSError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
