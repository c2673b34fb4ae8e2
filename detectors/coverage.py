"""How much of what was offered a window holds: accounting events and recorded gaps, beside the panes. No I/O.

Where no tap accounts (KServe's own agent), coverage is unknown, and said to be.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from detectors.fence import Commit
from servelens.contract.identity import ModelIdentity

Service = tuple[str, str, str]
MOST: Final = 50_000  # accounts and gaps remembered; older ones belong to windows long cut


@dataclass(frozen=True, slots=True)
class Account:
    """One accounting event where it lies in the panes log; `slots` both in."""

    partition: int
    offset: int
    service: Service
    slots: tuple[int, int]
    offered: int
    lost: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Payload offsets the log no longer held when it was read."""

    partition: int
    offset: int
    records: int


@dataclass(frozen=True, slots=True)
class Covered:
    """Exchanges offered and lost in the window's time (None: nobody accounts), and payload records lost in gaps."""

    offered: int | None
    lost: int
    gap_records: int

    @property
    def share(self) -> float | None:
        """Kept of offered, 0 to 1; None when nobody accounts."""
        if not self.offered:
            return None
        kept = self.offered - self.lost - self.gap_records
        return max(0.0, kept / self.offered)


@dataclass(slots=True)
class Coverage:
    """What was accounted for lately, over all services."""

    accounts: deque[Account] = field(default_factory=lambda: deque(maxlen=MOST))
    gaps: deque[Gap] = field(default_factory=lambda: deque(maxlen=MOST))

    def add(self, partition: int, offset: int, commit: Commit) -> None:
        """Note an accepted commit's accounting and gaps."""
        for row in commit.accounting:
            namespace, service, component = row["service"]
            first, last = row["slots"]
            self.accounts.append(
                Account(partition, offset, (namespace, service, component), (first, last), row["offered"], row["lost"])
            )
        for start, end in commit.gaps:
            self.gaps.append(Gap(partition, offset, end - start))

    def of(
        self,
        identity: ModelIdentity,
        slots: tuple[int, int],
        offsets: Mapping[int, int],
        since: Mapping[int, int],
    ) -> Covered:
        """Coverage of the slots `slots` (both in), as known below `offsets`; gaps since the last cut's offsets."""
        service = (identity.namespace, identity.inferenceservice, identity.component)
        first, last = slots
        accounts = [
            account
            for account in self.accounts
            if account.service == service
            and account.slots[0] <= last
            and account.slots[1] >= first
            and account.offset < offsets.get(account.partition, 0)
        ]
        gaps = sum(
            gap.records
            for gap in self.gaps
            if since.get(gap.partition, 0) <= gap.offset < offsets.get(gap.partition, 0)
        )
        offered = sum(account.offered for account in accounts) if accounts else None
        return Covered(offered, sum(account.lost for account in accounts), gaps)

    def to_mapping(self) -> dict[str, Any]:
        """The state as JSON."""
        return {
            "accounts": [(a.partition, a.offset, a.service, a.slots, a.offered, a.lost) for a in self.accounts],
            "gaps": [(g.partition, g.offset, g.records) for g in self.gaps],
        }

    @classmethod
    def from_mapping(cls, state: Mapping[str, Any]) -> "Coverage":
        """The state a snapshot holds."""
        coverage = cls()
        for partition, offset, service, slots, offered, lost in state["accounts"]:
            coverage.accounts.append(Account(partition, offset, tuple(service), tuple(slots), offered, lost))
        coverage.gaps.extend(Gap(*gap) for gap in state["gaps"])
        return coverage
