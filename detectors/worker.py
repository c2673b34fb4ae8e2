"""The worker: payload partitions from a consumer group, panes out, fenced by the panes log. All counting's I/O is here.

One loop, one thread: read the own panes partitions (so that acceptance and fencing are seen) and the letters to be
replayed, read payloads, close batches, append them. Group offsets are committed only for batches seen accepted: they
are for dashboards and lag; the position after a restart is the fold's. Called by `servelens detector --role worker`.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError

from detectors import fence, snapshot
from detectors.activation import Follower
from detectors.book import Book
from detectors.fence import PAYLOADS, RETRY, Commit, Entry, Fold, Outcome
from detectors.inputs import Inputs
from detectors.intake import Letter
from detectors.letters import letter_of
from detectors.ownership import Ownership
from detectors.settings import DetectorSettings
from detectors.stream import Stream
from servelens.contract.errors import ConfigError, PayloadError, StateError
from servelens.contract.metrics import Instruments
from servelens.contract.times import slot_of
from servelens.io.kafka import consumer, group_consumer, producer

log = logging.getLogger(__name__)

MAX_IN_FLIGHT: Final = 4  # batches of one partition sent and not yet seen accepted
SEND_TIMEOUT: Final = 30.0  # seconds
MAX_BACKOFF: Final = 10.0  # seconds between claims of one partition


@dataclass(slots=True)
class Held:
    """One assigned partition: the hold on it, and its inputs while it is owned."""

    ownership: Ownership
    streams: dict[str, Stream] = field(default_factory=dict)
    beaten: int = -1  # slot of the last heartbeat
    backoff: float = 0.0
    due: float = 0.0  # when to claim (again)
    fenced_since: float | None = None
    sent: list[Any] = field(default_factory=list)


class Worker:
    """Runs until `stop` is set."""

    def __init__(
        self,
        settings: DetectorSettings,
        book: Book,
        metrics: Instruments,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.settings, self.book, self.metrics, self.clock, self.wall = settings, book, metrics, clock, wall
        metrics["servelens_detector_dead_letters_total"].labels(reason="malformed")  # at 0: see the first increase
        self.stop = threading.Event()
        self.held: dict[int, Held] = {}
        self.name = f"worker-{uuid.uuid4().hex[:8]}"
        self.ready = False

    def run(self) -> None:
        """Join the group and work; BrokerError if Kafka cannot be reached, ConfigError if the topics do not fit."""
        kafka, topics = self.settings.kafka, self.settings.topics
        self.payloads: KafkaConsumer = group_consumer(
            kafka, self.settings.group, topics.payloads, max_poll_records=2000
        )
        self.tail: KafkaConsumer = consumer(kafka, fetch_max_wait_ms=20)
        self.panes: KafkaProducer = producer(kafka, linger_ms=0)
        self.follower = Follower(kafka, topics.profiles, self.book, self.clock)
        self.inputs = Inputs(self.settings, self.payloads, self.tail)
        self.inputs.check_partitions()
        self.inputs.look(self.clock())
        self.payloads.subscribe([topics.payloads], listener=_Rebalance(self))
        try:
            while not self.stop.is_set():
                self._turn()
        finally:
            self.held.clear()
            for client in (self.payloads, self.tail, self.panes, self.follower):
                client.close()

    # -- one turn ---------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._hear()
        if self.inputs.look_is_due(self.clock()):
            self._look_at_topics()
        self._read_tail()
        for partition, held in list(self.held.items()):
            self._tend(partition, held)
        polled = self.payloads.poll(timeout_ms=20)
        self.ready = bool(self.held)
        self._hear()  # the poll may have slept, and the whole process with it
        for where, rows in polled.items():
            self._take(where.partition, PAYLOADS, rows)
        for partition, held in list(self.held.items()):
            self._close_due(partition, held)

    def _hear(self) -> None:
        """Wait until the announced profiles are known as of a moment ago: what is counted must be counted by them."""
        while not self.follower.refresh_if_due():
            if self.stop.wait(0.5):
                return

    def _take(self, partition: int, name: str, rows: Sequence[Any]) -> None:
        held = self.held.get(partition)
        stream = held.streams.get(name) if held is not None and held.ownership.state == "owning" else None
        if held is not None and stream is not None and not stream.take(rows, self.clock()):
            log.warning("offsets went backwards", extra={"partition": partition, "input": name})
            self._look_at_topics()
            self._let_go(partition, held)

    def _look_at_topics(self) -> None:
        if not self.inputs.look(self.clock()):
            return
        log.warning("a topic was made anew", extra={"ids": self.inputs.ids})
        for partition, held in self.held.items():
            if held.ownership.state == "owning":
                self._let_go(partition, held)

    def _let_go(self, partition: int, held: Held) -> None:
        """Drop what is open and claim again, as one who was fenced."""
        held.ownership.state = "fenced"
        self._lost(partition, held, Outcome("rejected", held.ownership.heartbeat(0), reason="reset"))

    def _close_due(self, partition: int, held: Held) -> None:
        settings, now = self.settings, self.clock()
        if held.ownership.state != "owning":
            return
        for stream in held.streams.values():
            due = stream.due(now, settings.batch_records, settings.batch_seconds)
            if due and held.ownership.in_flight < MAX_IN_FLIGHT:
                self._close(partition, held, stream)
            self.inputs.throttle(partition, stream)
        if not any(stream.intake.records for stream in held.streams.values()) and held.ownership.in_flight == 0:
            self._beat(partition, held)

    def _close(self, partition: int, held: Held, stream: Stream) -> None:
        self._bury(partition, stream.name, stream.intake.letters)
        for result, count in stream.intake.results.items():
            self.metrics["servelens_detector_events_total"].labels(result=result).inc(count)
        self._append(partition, held, held.ownership.place(stream.close(), stream.name))

    def _beat(self, partition: int, held: Held) -> None:
        """Say that all there is has been read, once a slot."""
        where = self.inputs.where(PAYLOADS, partition)
        slot = slot_of(int(self.wall() * 1_000_000), self.settings.slot)
        end = self.payloads.highwater(where)
        if slot <= held.beaten or end is None or held.streams[PAYLOADS].position < end:
            return
        held.beaten = slot
        self._append(partition, held, [held.ownership.heartbeat(slot)])

    def _bury(self, partition: int, name: str, letters: Sequence[Letter]) -> None:
        topic = self.settings.topics.dead_letters(self.settings.group)
        for letter in letters:
            record = letter.record
            headers = letter_of(record, letter.reason, letter.problem, f"{name}/{partition}/{record.offset}")
            self.panes.send(topic, value=record.value, key=record.key, headers=headers, partition=partition)
            self.metrics["servelens_detector_dead_letters_total"].labels(reason=letter.reason).inc()

    def _append(self, partition: int, held: Held, entries: Sequence[Entry]) -> None:
        """Append entries; a send that fails ends the epoch, since what follows it could not be accepted."""
        topic = self.settings.topics.panes(self.settings.group)
        try:
            held.sent = [future for future in held.sent if not future.is_done]
            held.sent += [self.panes.send(topic, value=fence.encode(entry), partition=partition) for entry in entries]
        except KafkaError as error:
            log.warning("panes not sent", extra={"partition": partition, "error": repr(error)})
            held.ownership.state = "fenced"

    # -- the own panes log ------------------------------------------------------------------------------------

    def _read_tail(self) -> None:
        """Entries of the own panes partitions, and letters that are replayed."""
        for where, rows in self.tail.poll(timeout_ms=0).items() if self.held else ():
            if where.topic == self.inputs.topics[RETRY]:
                self._take(where.partition, RETRY, rows)
                continue
            held = self.held.get(where.partition)
            for record in rows:
                if held is not None and record.offset >= held.ownership.fold.at:
                    self._see(where.partition, held, record)

    def _see(self, partition: int, held: Held, record: Any) -> None:
        ownership, before = held.ownership, held.ownership.state
        try:
            outcome = ownership.see(record.offset, fence.decode(record.value))
        except PayloadError as error:
            log.warning("panes log holds a foreign record", extra={"partition": partition, "error": str(error)})
            ownership.fold.skip(record.offset)
            return
        if isinstance(outcome.entry, Commit) and outcome.entry.epoch == ownership.epoch:
            self._settled(partition, outcome)
        if before != "owning" and ownership.state == "owning":
            self._begin(partition, held)
        elif before == "owning" and ownership.state == "fenced":
            self._lost(partition, held, outcome)

    def _settled(self, partition: int, outcome: Outcome) -> None:
        result = outcome.reason or ("fenced" if outcome.verdict == "foreign" else outcome.verdict)
        self.metrics["servelens_detector_batches_total"].labels(result=result).inc()
        commit = outcome.entry
        if outcome.verdict != "accepted" or not isinstance(commit, Commit):
            return
        for _, pane in outcome.panes:
            self.metrics["servelens_detector_rows_total"].labels(**pane["identity"]).inc(pane["rows"])
        self.metrics["servelens_detector_gap_records_total"].inc(sum(end - start for start, end in commit.gaps))
        if commit.input != PAYLOADS:
            return
        where = self.inputs.where(PAYLOADS, partition)
        lag = (self.payloads.highwater(where) or commit.hi) - commit.hi
        self.metrics["servelens_detector_lag_records"].labels(partition=partition).set(max(0, lag))
        self.payloads.commit_async({where: OffsetAndMetadata(commit.hi, "", -1)})

    def _begin(self, partition: int, held: Held) -> None:
        """The own claim stands: start reading where the fold ended, a horizon earlier for halves that wait."""
        ownership = held.ownership
        if ownership.fold.slot_seconds not in (0, self.settings.slot):
            counted = f"the group counts in slots of {ownership.fold.slot_seconds} s"
            raise ConfigError("--slot", counted, "Use that, or another --group for another slot.")
        shorter = self.inputs.shorter(partition, ownership)
        if shorter:
            log.warning("a log is shorter than what was counted", extra={"partition": partition, "ends": shorter})
            self._claim(partition, held, "truncated", rewind=shorter)
            return
        held.streams = {name: self.inputs.open(name, partition, ownership, self.book) for name in self.inputs.topics}
        held.backoff, held.fenced_since, held.beaten = 0.0, None, -1
        log.info("owning", extra={"partition": partition, "next": dict(ownership.fold.next)})

    def _lost(self, partition: int, held: Held, outcome: Outcome) -> None:
        held.streams = {}
        held.fenced_since = self.clock()
        held.due = self.clock() + held.backoff
        self.inputs.pause(partition)
        log.warning("fenced", extra={"partition": partition, "by": outcome.verdict})

    # -- claims -----------------------------------------------------------------------------------------------

    def _tend(self, partition: int, held: Held) -> None:
        ownership = held.ownership
        if ownership.state == "owning" and any(future.failed() for future in held.sent):
            self._let_go(partition, held)
        if ownership.state == "fenced" and self.clock() >= held.due and self._still_mine(partition, held):
            held.backoff = min(MAX_BACKOFF, held.backoff * 2 or 0.5)
            held.due = self.clock() + held.backoff
            self._claim(partition, held, "assigned" if held.fenced_since is None else "fenced")

    def _still_mine(self, partition: int, held: Held) -> bool:
        """Whether the coordinator has just accepted us in this generation; a first claim needs no such proof."""
        if held.fenced_since is None:
            return True
        where = self.inputs.where(PAYLOADS, partition)
        try:
            self.payloads.commit({where: OffsetAndMetadata(held.ownership.next(), "", -1)}, timeout_ms=5000)
        except KafkaError as error:
            log.info("not claiming", extra={"partition": partition, "error": type(error).__name__})
            held.due = self.clock() + max(held.backoff, 0.5)
            return False
        return True

    def _claim(self, partition: int, held: Held, reason: str, rewind: Mapping[str, int] | None = None) -> None:
        generation = self.payloads.group_metadata().generation_id
        about = (uuid.uuid4().hex, self.name, generation, self.inputs.ids)
        claim = held.ownership.claim(*about, rewind, self.settings.slot)
        held.streams, held.sent = {}, []
        self._append(partition, held, [claim])
        self.metrics["servelens_detector_claims_total"].labels(reason=reason).inc()
        log.info("claiming", extra={"partition": partition, "reason": reason, "generation": generation})

    # -- rebalances -------------------------------------------------------------------------------------------

    def assigned(self, partitions: Sequence[int]) -> None:
        """Take up partitions: restore each fold from the newest snapshot and tail its log from there."""
        log.info("assigned", extra={"partitions": list(partitions)})
        settings = self.settings
        self.follower.refresh()
        restored = snapshot.folds(settings.kafka, settings.topics.state(settings.group))
        for partition in partitions:
            self.held[partition] = Held(Ownership(restored.get(partition) or Fold()))
            self.payloads.pause(TopicPartition(settings.topics.payloads, partition))
        self._follow()

    def _follow(self) -> None:
        """Tail the panes partitions of what is held, each from where its fold stands, and the letters beside them."""
        panes, retry = self.settings.topics.panes(self.settings.group), self.inputs.topics[RETRY]
        places = {TopicPartition(panes, partition): held.ownership.fold.at for partition, held in self.held.items()}
        letters = {TopicPartition(retry, partition): held for partition, held in self.held.items()}
        self.tail.assign([*places, *letters])
        starts = self.tail.beginning_offsets(list(places)) if places else {}
        for where, at in places.items():
            if starts[where] > at:
                problem = f"{panes}/{where.partition} begins at {starts[where]}, and no snapshot reaches it (only {at})"
                raise StateError(f"{problem}; start a new group, or restore the state topic")
            self.tail.seek(where, at)
        for where, held in letters.items():
            stream = held.streams.get(RETRY)
            self.tail.seek(where, stream.position if stream else 0)
            if stream is None:
                self.tail.pause(where)

    def revoked(self, partitions: Sequence[int]) -> None:
        """Let go: the open batch is dropped, for the next owner reads the same records again."""
        for partition in partitions:
            self.held.pop(partition, None)
        self._follow()


class _Rebalance(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        self._worker.revoked([where.partition for where in revoked])

    def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        self._worker.assigned([where.partition for where in assigned])
