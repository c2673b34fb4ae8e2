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
from detectors.coverage import Coverage, Covered
from detectors.fence import Commit, Fold
from detectors.fence import Entry as PaneEntry
from detectors.journal import Cut, Effect, Journal
from detectors.journal import Entry as JournalEntry
from detectors.monitor import MonitorState, WindowResult, step
from detectors.pane import Pane
from detectors.statistics import Settings
from detectors.verdict import Circumstances, verdict
from detectors.windows import Closing, OpenWindows, Piece, Taken
from servelens.contract.errors import PayloadError


@dataclass(frozen=True, slots=True)
class Judged:
    """A cut with its verdict (the event's data)."""

    cut: Cut
    verdict: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Group:
    """What the verdicts of a group rest on besides panes: its name and slot length are part of every verdict's id."""

    name: str
    slot_seconds: int
    statistics: Settings
    closing: Closing


class Evaluation:
    """The state. `late` counts rows by profile digest that came after their window; `unknown` panes without profile."""

    def __init__(self, book: Book, group: Group, partitions: int) -> None:
        self.book, self.group = book, group
        self.folds = {partition: Fold() for partition in range(partitions)}
        self.journal = Journal()
        self.windows: dict[str, OpenWindows] = {}
        self.monitors: dict[str, MonitorState] = {}
        self.coverage = Coverage()
        self.queue: deque[Cut] = deque()
        self.unpublished: dict[int, Judged] = {}
        self.unknown = 0

    # -- entries ----------------------------------------------------------------------------------------------

    def pane_entry(self, partition: int, offset: int, entry: PaneEntry) -> None:
        """Fold one entry of a panes partition."""
        outcome = self.folds[partition].apply(offset, entry)
        if outcome.verdict == "accepted" and isinstance(entry, Commit):
            self.coverage.add(partition, offset, entry)
            for at, pane in outcome.panes:
                self._piece(partition, at, pane)

    def _piece(self, partition: int, offset: int, mapping: Mapping[str, Any]) -> None:
        digest = str(mapping.get("profile"))
        profile = self.book.by_digest.get(digest)
        if profile is None:
            self.unknown += 1
            return
        try:
            pane = Pane.from_mapping(profile, mapping)
        except PayloadError:
            self.unknown += 1
            return
        if digest not in self.windows:
            self.windows[digest] = OpenWindows(profile)
        self.windows[digest].add(Piece(partition, offset, pane))

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
            judged = self._judge(cut)
            if judged is not None:
                if cut.number > self.journal.done:
                    self.unpublished[cut.number] = judged
                yield judged

    def _read(self, offsets: Mapping[str, int]) -> bool:
        return all(self.folds[int(partition)].at >= offset for partition, offset in offsets.items())

    def _judge(self, cut: Cut) -> Judged | None:
        windows = self.windows.get(cut.digest)
        if windows is None:
            return None
        profile, since = windows.profile, dict(windows.offsets)
        taken = windows.take(cut)
        if taken.window is None:
            return None
        before = self.monitors.get(cut.digest) or MonitorState.start(profile)
        self.monitors[cut.digest], result = step(before, taken.window, profile, self.group.statistics)
        covered = self.coverage.of(profile.identity, (cut.first, cut.last), windows.offsets, since)
        about = self._circumstances(cut, taken, covered, result)
        return Judged(cut, verdict(result, about, profile, self.group.statistics))

    def _circumstances(self, cut: Cut, taken: Taken, covered: Covered, result: WindowResult) -> Circumstances:
        return Circumstances(
            group=self.group.name,
            first=cut.first,
            last=cut.last,
            slot_seconds=self.group.slot_seconds,
            late_rows=taken.late_rows,
            coverage=covered.share,
            gaps=[{"records": covered.gap_records}] if covered.gap_records else [],
            timesource="producer" if result.window.counters.get("producer_time") else "broker",
        )

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
        for digest, windows in sorted(self.windows.items()):
            slots = windows.proposal(watermark, self.group.closing)
            if slots is not None:
                number = self.journal.cuts + len(cuts) + 1
                cuts.append(Cut(epoch, number, str(windows.profile.identity), digest, *slots, offsets))
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
            "windows": {digest: windows.to_mapping() for digest, windows in self.windows.items()},
            "monitors": {d: m.to_mapping(self.windows[d].profile) for d, m in self.monitors.items()},
            "coverage": self.coverage.to_mapping(),
            "unpublished": [
                {"cut": {name: getattr(judged.cut, name) for name in Cut.__slots__}, "verdict": judged.verdict}
                for judged in self.unpublished.values()
            ],
        }

    def restore(self, state: Mapping[str, Any]) -> bool:
        """Take up a snapshot; False (and nothing taken) if it is of another slot length or statistics.

        Models whose profile is no longer in the folder are left behind.
        """
        if state["group"] != [self.group.name, self.group.slot_seconds, self.group.statistics.version]:
            return False
        self.folds |= {int(partition): Fold.from_mapping(fold) for partition, fold in state["folds"].items()}
        self.journal = Journal(**state["journal"])
        for digest, windows in state["windows"].items():
            profile = self.book.by_digest.get(digest)
            if profile is not None:
                self.windows[digest] = OpenWindows.from_mapping(profile, windows)
                if digest in state["monitors"]:
                    self.monitors[digest] = MonitorState.from_mapping(profile, state["monitors"][digest])
        self.coverage = Coverage.from_mapping(state["coverage"])
        for row in state["unpublished"]:
            judged = Judged(Cut(**row["cut"]), row["verdict"])
            self.unpublished[judged.cut.number] = judged
        return True
