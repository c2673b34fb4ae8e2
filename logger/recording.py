"""What the recorder does: frames of many links into one spool, and the account kept straight as taps come and go.

Apart from `recorder`, the process around it. Called on one event loop; a commit blocks it for milliseconds, and that
delays nobody but the taps' acknowledgements.
"""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from logger import ledger, state
from logger.account import SUFFIX
from logger.accounting import DEFAULT_SLOT, event, slot_end
from logger.intake import Intake
from logger.receiving import Receiver
from logger.spool import Spool
from servelens.contract.errors import StateError
from servelens.contract.identity import ModelIdentity
from servelens.contract.metrics import SERVICE, Instruments

log = logging.getLogger(__name__)

COMMIT_AFTER: Final = 0.02  # seconds the first frame of a batch waits at most
RETRY_AFTER: Final = 0.5  # seconds after the volume did not take a commit
TICK: Final = 0.25  # seconds between looks at dead taps and the clock
TIDY_TICKS: Final = 4
HELLO_TICKS: Final = 20  # a connection that has said nothing by then is no tap's, and would hold up settling
DRAIN: Final = 2.0  # seconds a dying recorder reads on what dead taps have left in their sockets


class Recorder:
    """Links, one intake, one spool. `now_us` is the wall clock in Unix microseconds."""

    def __init__(
        self,
        spool: Spool,
        intake: Intake,
        accounts: Path,
        identity: ModelIdentity,
        instruments: Instruments,
        *,
        slot_seconds: float = DEFAULT_SLOT,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self.spool, self._intake, self._accounts, self._identity = spool, intake, accounts, identity
        self._instruments, self._slot, self._now_us = instruments, slot_seconds, now_us
        self._service: Mapping[str, str] = {name: identity.labels()[name] for name in SERVICE}
        self._receivers: set[Receiver] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._held = False
        self._seen_dead: set[str] = set()
        self._troubled = False
        self._ticks = 0
        self.broken = asyncio.Event()
        self._start_over()

    def _start_over(self) -> None:
        here = set(ledger.streams_in(self._accounts))
        for stream in set(self.spool.state.streams) - here:
            self.spool.update(lambda old, stream=stream: state.settle_without_account(old, stream))  # type: ignore[misc]
        if not self.spool.state.reported.until_us:
            # The first slot begins now, and not with the slots of before this spool.
            begin = replace(self.spool.state.reported, until_us=self._now_us())
            self.spool.update(lambda old: replace(old, reported=begin))
        self._intake.begin(self.spool.state)

    # -- links

    def joined(self, receiver: Receiver) -> None:
        """A new connection."""
        self._receivers.add(receiver)
        if self._held:
            receiver.hold()

    def left(self, receiver: Receiver) -> None:
        """A connection has ended; all its bytes have been read."""
        self._receivers.discard(receiver)

    def committed(self, stream: str) -> int | None:
        """The last frame in the spool of a tap that lives, or is not settled yet; None for any other."""
        if stream in self.spool.state.settled or not (self._accounts / (stream + SUFFIX)).exists():
            return None
        return self.spool.state.streams.get(stream, 0)

    def failed(self, task: str, error: Exception) -> None:
        """Count and log what went wrong at a task's top."""
        self._instruments["servelens_task_errors_total"].labels(task=task).inc()
        log.error("failed", extra={"task": task, "problem": str(error)}, exc_info=error)

    # -- frames to rows

    def take(self, stream: str, number: int, payload: bytes) -> None:
        """One frame; committed with others, at the latest after COMMIT_AFTER."""
        self._intake.take(stream, number, payload)
        if self._held:
            return
        if self._intake.full:
            self.commit()
        elif self._timer is None and self._intake.batch.taken:
            self._timer = asyncio.get_running_loop().call_later(COMMIT_AFTER, self.commit)

    def commit(self) -> bool:
        """Commit what has been taken and acknowledge it; False if that has to wait, or taken again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch = self._intake.batch
        if not batch.frames and not batch.rows:
            return True
        try:
            self.spool.commit(batch)
        except StateError as error:
            self._repair(error)
            return False
        except (sqlite3.OperationalError, OSError) as error:
            self._hold(error)
            return False
        self._intake.begin(self.spool.state)
        for receiver in self._receivers:
            if receiver.stream in batch.frames:
                receiver.acknowledge(batch.frames[receiver.stream])
        self._release()
        return True

    def _hold(self, error: Exception) -> None:
        """The volume is full or busy: read no more, so that the taps' own bound counts what is too much."""
        if not self._held:
            log.error("spool cannot be written; reading stops", extra={"problem": str(error)})
        self._held = True
        for receiver in self._receivers:
            receiver.hold()
        self._timer = asyncio.get_running_loop().call_later(RETRY_AFTER, self.commit)

    def _release(self) -> None:
        if self._held:
            log.info("spool can be written again")
            for receiver in self._receivers:
                receiver.release()
        self._held = False

    def _repair(self, error: StateError) -> None:
        """The newest segment is damaged: go on from what can be read; the taps send again what they still have."""
        self.failed("recorder.spool", error)
        for receiver in tuple(self._receivers):
            receiver.close()
        try:
            self.spool.repair(ledger.handed_over(self._accounts))
            self._start_over()
            self._release()
        except (StateError, sqlite3.Error, OSError) as worse:
            self.failed("recorder.repair", worse)
            self.broken.set()  # the parent starts another, which tries from the beginning

    # -- keeping

    def tick(self) -> None:
        """Settle dead taps, tell each finished slot, and now and then tidy up."""
        if self._held:
            return
        self._ticks += 1
        try:
            self.settle()
            self._account(slot_end(self._now_us(), self._slot))
            if self._ticks % TIDY_TICKS == 0:
                self.spool.tidy()
                self._instruments["servelens_logger_spool_bytes"].labels(**self._service).set(self.spool.bytes())
            self._troubled = False
        except StateError as error:
            self._repair(error)
        except (sqlite3.OperationalError, OSError) as error:  # a full volume: told once, counted each time
            self._instruments["servelens_task_errors_total"].labels(task="recorder.tick").inc()
            if not self._troubled:
                log.error("the spool takes nothing", extra={"problem": str(error)})  # noqa: TRY400
            self._troubled = True

    def settle(self) -> None:
        """Settle every tap found dead twice: in between, what it left in an unaccepted connection has been read."""
        linked = {receiver.stream for receiver in self._receivers}
        self._close_silent()
        self._forget_settled()
        dead = set[str]()
        for stream in ledger.streams_in(self._accounts):
            found = None if stream in linked or "" in linked else ledger.account_of(self._accounts, stream)
            if found is None or found[1]:
                continue
            dead.add(stream)
            if stream in self._seen_dead and self.commit():
                self.spool.update(lambda old, s=stream, counts=found[0]: state.settle(old, s, counts))  # type: ignore[misc]
                self._intake.begin(self.spool.state)
        self._seen_dead = dead
        self._forget_settled()

    def _close_silent(self) -> None:
        for receiver in tuple(self._receivers):
            receiver.silent += not receiver.stream
            if receiver.silent > HELLO_TICKS:
                receiver.close()

    def _forget_settled(self) -> None:
        """The file goes after its counts are committed, and its name after the file: a kill between loses nothing."""
        if self.spool.state.settled:
            for stream in self.spool.state.settled:
                (self._accounts / (stream + SUFFIX)).unlink(missing_ok=True)
            self.spool.update(lambda old: replace(old, settled=()))

    def _account(self, until_us: int) -> None:
        if until_us <= self.spool.state.reported.until_us:
            return
        taps = ledger.unsettled(self._accounts, self.spool.state).values()
        record, self._intake.batch.reported = event(
            self.spool.state, taps, self._identity, self._intake.next_seq, until_us
        )
        self._intake.append(record)
        self.commit()

    async def run(self, stop: asyncio.Event) -> None:
        """Tick until told to stop."""
        while not stop.is_set() and not self.broken.is_set():
            self.tick()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), TICK)

    async def finish(self) -> None:
        """Read what dead taps left, commit, settle, tell the rest of the slot."""
        deadline = time.monotonic() + DRAIN
        while time.monotonic() < deadline and any(map(self._left_by_the_dead, self._receivers)):  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.01)
        for _ in range(2):
            await asyncio.sleep(0)
            self.commit()
            self.tick()
        self._account(self._now_us())
        for receiver in tuple(self._receivers):
            receiver.close()

    def _left_by_the_dead(self, receiver: Receiver) -> bool:
        found = ledger.account_of(self._accounts, receiver.stream) if receiver.stream else None
        return not receiver.stream or (found is not None and not found[1])
