"""Everything the evaluators of a group agree on, as one state over the panes logs and the journal. No I/O, no clock.

Feed it every entry of every panes partition and of the journal, each in order; it applies a recorded cut once the panes
have been read as far as the cut says, and gives the verdict. A standby, a replay and the active evaluator come to the
same verdicts. Only *proposing* cuts depends on time, and that is the active evaluator's business.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from detectors.book import Book
from detectors.coverage import Coverage
from detectors.fence import Commit, Fold, Part
from detectors.fence import Entry as PaneEntry
from detectors.journal import Cut, Effect, Journal
from detectors.journal import Entry as JournalEntry
from detectors.pane import Pane
from detectors.statistics import Settings
from detectors.verdict import Circumstances
from detectors.watched import Watched
from detectors.windows import Closing, Piece
from servelens.contract.errors import PayloadError


@dataclass(frozen=True, slots=True)
class Judged:
    """A cut with one of its verdicts (the event's data); `telling`: whether it is one to be published."""

    cut: Cut
    verdict: Mapping[str, Any]
    telling: bool = True


@dataclass(frozen=True, slots=True)
class Group:
    """What the verdicts of a group rest on besides panes: its name and slot length are part of every verdict's id.

    `heartbeat`: seconds of event time after which a verdict is published though nothing has changed.
    """

    name: str
    slot_seconds: int
    statistics: Settings
    closing: Closing
    heartbeat: int = 3600


class Evaluation:
    """The state. `unknown` counts panes without a profile, or that are none of it."""

    def __init__(self, book: Book, group: Group, partitions: int) -> None:
        self.book, self.group = book, group
        self.folds = {partition: Fold() for partition in range(partitions)}
        self.journal = Journal()
        self.watched: dict[str, Watched] = {}  # by profile digest
        self.coverage = Coverage(group.slot_seconds)
        self.queue: deque[Cut] = deque()
        self.unpublished: dict[int, list[Judged]] = {}  # by the cut's number
        self.unknown = 0

    # -- entries ----------------------------------------------------------------------------------------------

    def pane_entry(self, partition: int, offset: int, entry: PaneEntry) -> None:
        """Fold one entry of a panes partition."""
        outcome = self.folds[partition].apply(offset, entry)
        if outcome.verdict == "accepted" and isinstance(entry, Commit):
            self.coverage.add(partition, offset, entry)
            for _, pane in outcome.panes:
                # Where the commit lies, not the part: a cut between the two is from before the batch counted.
                self._piece(partition, offset, pane, (entry.input, entry.lo, entry.hi))

    def missing(self, entry: PaneEntry) -> str:
        """The digest of a profile that an entry speaks of and this process has not been told of; "" for none."""
        digest = str(entry.pane.get("profile")) if isinstance(entry, Part) else ""
        return "" if digest in self.book.by_digest else digest

    def _piece(self, partition: int, offset: int, mapping: Mapping[str, Any], source: tuple[str, int, int]) -> None:
        profile = self.book.by_digest.get(str(mapping.get("profile")))
        if profile is None:
            self.unknown += 1
            return
        try:
            pane = Pane.seal(profile, mapping)
        except PayloadError:
            self.unknown += 1
            return
        if profile.digest not in self.watched:
            self.watched[profile.digest] = Watched.start(profile)
        self.watched[profile.digest].windows.add(Piece(partition, offset, pane, source))

    def journal_entry(self, offset: int, entry: JournalEntry) -> Effect:
        """Fold one entry of the journal; an accepted cut waits until `settle` can apply it."""
        effect = self.journal.apply(offset, entry)
        if effect == "cut" and isinstance(entry, Cut):
            self.queue.append(entry)
        if effect == "done":
            for number in [number for number in self.unpublished if number <= self.journal.done]:
                del self.unpublished[number]
        return effect

    # -- cuts -------------------------------------------------------------------------------------------------

    def settle(self) -> Iterator[Judged]:
        """Apply the queued cuts whose panes have been read, in order."""
        while self.queue and self._read(self.queue[0].offsets):
            cut = self.queue.popleft()
            judged = list(self._judge(cut))
            told = [one for one in judged if one.telling]
            if told and cut.number > self.journal.done:
                self.unpublished[cut.number] = told
            yield from judged

    def _read(self, offsets: Mapping[str, int]) -> bool:
        return all(self.folds[int(partition)].at >= offset for partition, offset in offsets.items())

    def _judge(self, cut: Cut) -> Iterator[Judged]:
        watched = self.watched.get(cut.digest)
        if watched is None:
            return
        since = dict(watched.windows.offsets)
        taken = watched.windows.take(cut)
        identity = watched.profile.identity
        covered = self.coverage.of(identity, (cut.first, cut.last), watched.windows.offsets, since)
        about = Circumstances(
            group=self.group.name,
            first=cut.first,
            last=cut.last,
            slot_seconds=self.group.slot_seconds,
            coverage=covered.share,
            gaps=[{"records": covered.gap_records}] if covered.gap_records else [],
            previous=cut.previous,
            following=cut.following,
            heartbeat_slots=-(-self.group.heartbeat // self.group.slot_seconds),
        )
        for said, telling in watched.judge(taken, about, self.group.statistics):
            yield Judged(cut, said, telling)

    # -- proposals --------------------------------------------------------------------------------------------

    def watermark(self, silent: Iterable[int] = ()) -> int:
        """The slot every partition has reached, leaving out the silent ones; -1 while nothing was read."""
        left_out = set(silent)
        return min((fold.slot for partition, fold in self.folds.items() if partition not in left_out), default=-1)

    def proposals(self, watermark: int, epoch: str) -> list[Cut]:
        """The cuts that may be made now, numbered on from the journal; none while one is on its way."""
        if self.queue or watermark < 0:
            return []
        offsets = {str(partition): fold.at for partition, fold in self.folds.items()}
        cuts: list[Cut] = []
        for digest, watched in sorted(self.watched.items()):
            windows, seconds = watched.windows, self.group.slot_seconds
            oldest = windows.oldest
            if oldest is None or digest not in self.book.by_digest:
                continue
            reign = self.book.line_of(watched.profile).reign(oldest, seconds)
            slots = windows.proposal(watermark, self.group.closing, reign.since, reign.until)
            if slots is None:
                continue
            new = windows.first is None or windows.first < reign.since
            previous = reign.previous if new else ""
            following = reign.following if reign.until == slots[1] + 1 else ""
            number, model = self.journal.cuts + len(cuts) + 1, str(watched.profile.identity)
            cuts.append(Cut(epoch, number, model, digest, *slots, offsets, previous, following))
        return cuts

    # -- snapshots --------------------------------------------------------------------------------------------

    @property
    def reach(self) -> int:
        """Entries read of all logs together: orders snapshots of one group."""
        return self.journal.at + sum(fold.at for fold in self.folds.values())

    def to_mapping(self) -> dict[str, Any]:
        """The state as JSON; only between `settle` and the next entry, when no cut is queued."""
        return {
            "group": [self.group.name, self.group.slot_seconds, self.group.statistics.version],
            "folds": {str(partition): fold.to_mapping() for partition, fold in self.folds.items()},
            "journal": self.journal.to_mapping(),
            "watched": {digest: watched.to_mapping() for digest, watched in self.watched.items()},
            "coverage": self.coverage.to_mapping(),
            "unpublished": [
                {"cut": {name: getattr(judged.cut, name) for name in Cut.__slots__}, "verdict": judged.verdict}
                for told in self.unpublished.values()
                for judged in told
            ],
        }

    def restore(self, state: Mapping[str, Any]) -> bool:
        """Take up a snapshot; False (and nothing taken) if it is of another slot length or statistics.

        Models whose profile is no longer known are left behind.
        """
        if state["group"] != [self.group.name, self.group.slot_seconds, self.group.statistics.version]:
            return False
        self.folds |= {int(partition): Fold.from_mapping(fold) for partition, fold in state["folds"].items()}
        self.journal = Journal(**state["journal"])
        for digest, watched in state["watched"].items():
            profile = self.book.by_digest.get(digest)
            if profile is not None:
                self.watched[digest] = Watched.from_mapping(profile, watched)
        self.coverage = Coverage.from_mapping(self.group.slot_seconds, state["coverage"])
        for row in state["unpublished"]:
            judged = Judged(Cut(**row["cut"]), row["verdict"])
            self.unpublished.setdefault(judged.cut.number, []).append(judged)
        return True
