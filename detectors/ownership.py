"""One worker's hold on one partition: claim, send batches, see them accepted, notice when fenced. No I/O.

The worker appends what this returns and feeds back every entry of its panes partition in order. A batch is done when it
is seen accepted, not when it was sent; only then may group offsets follow. One claim covers all inputs of its partition
number: the payloads, and what is replayed. Called by `detectors.worker` alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from detectors.fence import PAYLOADS, Claim, Commit, Entry, Fold, Heartbeat, Outcome, Part

State = Literal["claiming", "owning", "fenced"]


@dataclass(frozen=True, slots=True)
class Batch:
    """What a worker made of an input's offsets up to `hi`, not yet placed: panes as mappings, and what commits say."""

    hi: int
    panes: Sequence[Mapping[str, Any]]
    records: int
    slot: int
    gaps: tuple[tuple[int, int], ...] = ()
    seqs: Mapping[str, int] = field(default_factory=dict)
    accounting: tuple[Mapping[str, Any], ...] = ()


class Ownership:
    """The hold on one partition, from a fold (restored or empty) onward. `state` says what may be done."""

    def __init__(self, fold: Fold) -> None:
        self.fold = fold
        self.state: State = "fenced"
        self.epoch = ""
        self.sent: dict[str, int] = {}  # by input, where its next batch starts
        self.in_flight = 0

    def claim(
        self,
        epoch: str,
        worker: str,
        generation: int,
        topics: Mapping[str, str],
        rewind: Mapping[str, int] | None = None,
        slot_seconds: int = 0,
    ) -> Claim:
        """The claim to append; nothing may be sent before it has been seen in the log.

        `rewind` takes inputs back to where their logs end now, after a truncation.
        """
        self.epoch, self.state, self.in_flight = epoch, "claiming", 0
        return Claim(epoch, worker, generation, topics, rewind or {}, slot_seconds)

    def see(self, offset: int, entry: Entry) -> Outcome:
        """Fold one entry of the partition; `state` is `owning` once the own claim came by, while it stands."""
        outcome = self.fold.apply(offset, entry)
        if isinstance(entry, Claim):
            self._claimed(entry)
        elif entry.epoch == self.epoch and isinstance(entry, Commit):
            self.in_flight -= 1
            if outcome.verdict == "rejected":
                self.state = "fenced"
        return outcome

    def _claimed(self, claim: Claim) -> None:
        if claim.epoch == self.epoch:
            self.state, self.sent, self.in_flight = "owning", dict(self.fold.next), 0
        elif self.state == "owning":
            self.state = "fenced"
        # A foreign claim while ours is still on its way: ours comes later in the log and takes the partition back.

    def next(self, name: str = PAYLOADS) -> int:
        """The first offset of an input that no accepted batch covers."""
        return self.fold.next.get(name, 0)

    def seqs(self, name: str = PAYLOADS) -> dict[str, int]:
        """A copy of the last row number read per tap."""
        return dict(self.fold.seqs.get(name, {}))

    def place(self, batch: Batch, name: str = PAYLOADS) -> list[Part | Commit]:
        """The entries that append a batch of an input where the last one ended, in order; only while `owning`."""
        lo, hi, count = self.sent.get(name, 0), batch.hi, len(batch.panes)
        parts: list[Part | Commit] = [
            Part(self.epoch, name, lo, hi, index, count, pane) for index, pane in enumerate(batch.panes)
        ]
        end = Commit(
            self.epoch, name, lo, hi, count, batch.records, batch.slot, batch.gaps, batch.seqs, batch.accounting
        )
        self.sent[name] = hi
        self.in_flight += 1
        return [*parts, end]

    def heartbeat(self, slot: int) -> Heartbeat:
        """The sign that all there is has been read."""
        return Heartbeat(self.epoch, slot)
