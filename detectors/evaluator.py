"""The evaluator: follows the panes logs and the journal, and, while it holds the lease, cuts, publishes and snapshots.

One loop, one thread, one consumer. Standbys follow with the same state and take over when the holder falls silent. All
I/O of judging is here; what is judged is `evaluation`'s. Called by `servelens detector --role evaluator`.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any, Final

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from detectors import fence, journal, publish, snapshot
from detectors.activation import REFRESH, Follower
from detectors.book import Book
from detectors.evaluation import Evaluation, Group, Judged
from detectors.settings import DetectorSettings
from detectors.verdict import summary
from servelens.contract.errors import ConfigError, PayloadError, StateError
from servelens.contract.metrics import Instruments
from servelens.io.kafka import consumer, partition_count, producer

log = logging.getLogger(__name__)

FETCH: Final = 8 << 20  # bytes of a partition at once: a restart reads far behind
SNAPSHOT_SECONDS: Final = 10.0
SNAPSHOT_SHARE: Final = 0.05  # of the time may go into snapshots: those of many models are made less often
SEND_TIMEOUT: Final = 30.0  # seconds


class Evaluator:
    """Runs until `stop` is set."""

    def __init__(
        self,
        settings: DetectorSettings,
        book: Book,
        metrics: Instruments,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings, self.book, self.metrics, self.clock = settings, book, metrics, clock
        self.stop = threading.Event()
        self.name = f"evaluator-{uuid.uuid4().hex[:8]}"
        self.lease = journal.Lease(settings.lease, quiet_since=clock())
        self.ready = False
        self._considered: tuple[int, int, str] | None = None  # watermark, cuts and epoch of the last proposal
        self._proposed = 0  # number of the last cut appended
        self._moved: dict[int, tuple[int, float]] = {}  # partition → its slot, and when that last changed
        self._renewed = self._snap_due = 0.0
        self._turns = self._reach = 0
        self._showing = False
        self._ask_again: dict[str, float] = {}  # unknown profiles, and when to look for them once more
        self.lock = threading.Lock()  # held while the evaluation changes: the API reads it from another thread
        self.evaluation: Evaluation | None = None

    def run(self) -> None:
        """Restore, then follow; ConfigError if the topics do not fit."""
        kafka, topics, group = self.settings.kafka, self.settings.topics, self.settings.group
        self.logs: KafkaConsumer = consumer(kafka, fetch_max_wait_ms=50, max_partition_fetch_bytes=FETCH)
        self.follower = Follower(kafka, topics.profiles, self.book, self.clock)
        self.follower.refresh()
        self.out: KafkaProducer = producer(kafka, linger_ms=0)
        partitions = partition_count(self.logs, topics.panes(group))
        if not partitions or not partition_count(self.logs, topics.lease(group)):
            raise ConfigError(
                "topics", "the group's topics are missing", f"Run: servelens topics apply --group {group}"
            )
        settings = self.settings
        about = Group(group, settings.slot, settings.statistics, settings.closing, settings.heartbeat)
        state = self.evaluation = Evaluation(self.book, about, partitions)
        self._restore(state)
        try:
            self._catch_up()
            while not self.stop.is_set():
                self._turn()
        finally:
            for client in (self.logs, self.out, self.follower):
                client.close()

    # -- reading ----------------------------------------------------------------------------------------------

    @property
    def _state(self) -> Evaluation:
        if self.evaluation is None:
            raise StateError("the evaluator has not begun")
        return self.evaluation

    def _places(self) -> dict[TopicPartition, int]:
        topics, group = self.settings.topics, self.settings.group
        folds = self._state.folds
        places = {TopicPartition(topics.panes(group), partition): fold.at for partition, fold in folds.items()}
        return {**places, TopicPartition(topics.lease(group), 0): self._state.journal.at}

    def _restore(self, evaluation: Evaluation) -> None:
        state = snapshot.read(self.settings.kafka, self.settings.topics.state(self.settings.group))
        if state is not None and not evaluation.restore(state):
            remedy = "Use another --group for another slot or other statistics."
            raise ConfigError("--slot", f"the group's snapshot was made with {state['group']}", remedy)
        places = self._places()
        self.logs.assign(list(places))
        starts = self.logs.beginning_offsets(list(places))
        for where, at in places.items():
            if starts[where] > at:
                problem = (
                    f"{where.topic}/{where.partition} begins at {starts[where]}, no snapshot reaches it (only {at})"
                )
                raise StateError(f"{problem}; start a new group, or restore the state topic")
            self.logs.seek(where, at)

    def _catch_up(self) -> None:
        """Read to the ends as of now, without proposing anything: what the old cuts were is in the journal."""
        ends = self.logs.end_offsets(list(self._places()))
        while not self.stop.is_set() and any(self.logs.position(where) < end for where, end in ends.items()):
            self._read(200)
        self.lease.quiet_since = self.clock()
        self.ready = True

    def _read(self, timeout_ms: int) -> None:
        polled = self.logs.poll(timeout_ms=timeout_ms, max_records=5000)
        with self.lock:
            for where, rows in polled.items():
                take = self._journal if where.topic == self.settings.topics.lease(self.settings.group) else self._pane
                for record in rows:
                    take(where.partition, record)
            judged = list(self._state.settle())
        for one in judged:
            self._judged(one)

    def _pane(self, partition: int, record: Any) -> None:
        try:
            entry = fence.decode(record.value)
        except PayloadError as error:
            log.warning("panes log holds a foreign record", extra={"partition": partition, "error": str(error)})
            self._state.folds[partition].skip(record.offset)
            return
        unknown = self._state.missing(entry)
        if unknown and self.clock() >= self._ask_again.get(unknown, 0.0):
            self.follower.refresh()  # the worker was told of a profile that we have not read of yet
            self._ask_again[unknown] = self.clock() + REFRESH
        self._state.pane_entry(partition, record.offset, entry)

    def _journal(self, _: int, record: Any) -> None:
        try:
            entry = journal.decode(record.value)
        except PayloadError as error:
            log.warning("journal holds a foreign record", extra={"error": str(error)})
            self._state.journal.at = record.offset + 1
            return
        effect = self._state.journal_entry(record.offset, entry)
        self.lease.see(entry, effect, self.clock())
        if effect == "claimed":
            self._proposed = self._state.journal.cuts
            log.info("lease", extra={"holder": getattr(entry, "evaluator", ""), "mine": self.active})

    # -- the active one ---------------------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether this evaluator holds the lease, as far as it has read."""
        return self.lease.holds(self._state.journal)

    def _turn(self) -> None:
        self.follower.refresh_if_due()
        self._read(50)
        now = self.clock()
        self._show()
        if self.active:
            self._renew(now)
            self._publish()
            self._propose(now)
            self._snapshot(now)
        elif self.lease.may_claim(now) or (not self._state.journal.epoch and not self.lease.claiming):
            self._append([self.lease.claim(uuid.uuid4().hex, self.name)])

    def _append(self, entries: Iterable[journal.Entry]) -> None:
        topic = self.settings.topics.lease(self.settings.group)
        for entry in entries:
            self.out.send(topic, value=journal.encode(entry), partition=0).get(SEND_TIMEOUT)

    def _renew(self, now: float) -> None:
        if now - self._renewed >= self.settings.lease / 4:
            self._renewed = now
            self._append([journal.Renew(self.lease.epoch)])

    def _propose(self, now: float) -> None:
        """Append the cuts that may be made; the next ones wait until these have come back through the journal."""
        if self._proposed > self._state.journal.cuts:
            return
        watermark = self._state.watermark(self._silent(now))
        self.metrics["servelens_evaluator_watermark_seconds"].set(max(0, watermark) * self.settings.slot)
        lag = sum(max(0, (self.logs.highwater(where) or 0) - at) for where, at in self._places().items())
        self.metrics["servelens_evaluator_lag_entries"].set(lag)
        considered = (watermark, self._state.journal.cuts, self.lease.epoch)
        if considered == self._considered:  # no slot more is complete: looking through all panes again finds nothing
            return
        self._considered = considered
        cuts = self._state.proposals(watermark, self.lease.epoch)
        if cuts:
            self._append(cuts)
            self._proposed = cuts[-1].number

    def _silent(self, now: float) -> list[int]:
        silent = []
        for partition, fold in self._state.folds.items():
            slot, since = self._moved.get(partition, (fold.slot, now))
            if slot != fold.slot:
                since = now
            self._moved[partition] = (fold.slot, since)
            if now - since >= self.settings.silence:
                silent.append(partition)
        return silent

    def _judged(self, judged: Judged) -> None:
        if not self._showing:
            return
        said = judged.verdict
        if judged.telling:
            log.info(summary(said), extra={"verdict": said["id"], "state": said["state"]})
        publish.count(said, self.metrics)
        publish.expose(said, self.book.by_digest[said["profile"]], self.metrics)

    def _show(self) -> None:
        """Only the active evaluator exposes verdicts: two answers for one model would be two alerts."""
        self.metrics["servelens_evaluator_active"].set(int(self.active))
        if self.active == self._showing:
            return
        self._showing = self.active
        if not self._showing:
            publish.withdraw(self.metrics)
            return
        for watched in self._state.watched.values():
            for said in watched.latest():
                publish.expose(said, watched.profile, self.metrics)

    def _publish(self) -> None:
        """Send every verdict not yet known to be out, then say so; a crash in between sends them twice, same ids."""
        if not self._state.unpublished:
            return
        topic = self.settings.topics.verdicts
        sent = []
        for judged in (one for told in self._state.unpublished.values() for one in told):
            record = publish.event(judged.verdict)
            sent.append(self.out.send(topic, key=record.key, value=record.value, headers=list(record.headers)))
        for future in sent:
            future.get(SEND_TIMEOUT)
        last = max(self._state.unpublished)
        self._append([journal.Done(self.lease.epoch, last)])
        self._state.unpublished.clear()

    def _snapshot(self, now: float) -> None:
        reach = self._state.reach
        if now < self._snap_due or reach == self._reach or self._state.queue:
            return
        began, self._reach, self._turns = time.perf_counter(), reach, self._turns + 1
        topic = self.settings.topics.state(self.settings.group)
        with self.lock:
            state = self._state.to_mapping()
        sent = [
            self.out.send(topic, key=key, value=value, partition=0)
            for key, value in snapshot.records(state, self.name, self._turns, reach)
        ]
        for future in sent:
            future.get(SEND_TIMEOUT)
        self._snap_due = now + max(SNAPSHOT_SECONDS, (time.perf_counter() - began) / SNAPSHOT_SHARE)
