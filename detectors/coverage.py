"""How much of what was offered a window holds: accounting events and recorded gaps, beside the panes. No I/O.

Where no tap accounts (KServe's own agent), coverage is unknown, and said to be.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from detectors.fence import Commit
from servelens.contract.identity import ModelIdentity
from servelens.contract.times import US

Service = tuple[str, str, str]
MOST: Final = 50_000  # accounts and gaps remembered; older ones belong to windows long cut


@dataclass(frozen=True, slots=True)
class Account:
    """One accounting event where it lies in the panes log; `from_us`, `to_us` in Unix microseconds."""

    partition: int
    offset: int
    service: Service
    from_us: int
    to_us: int
    offered: int
    lost: int

    def share(self, from_us: int, to_us: int) -> float:
        """How much of its time lies in [from_us, to_us): all of it, as a rule, or none."""
        inside = min(self.to_us, to_us) - max(self.from_us, from_us)
        return max(0.0, inside / max(self.to_us - self.from_us, 1))


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

    slot_seconds: int
    accounts: deque[Account] = field(default_factory=lambda: deque(maxlen=MOST))
    gaps: deque[Gap] = field(default_factory=lambda: deque(maxlen=MOST))

    def add(self, partition: int, offset: int, commit: Commit) -> None:
        """Note an accepted commit's accounting and gaps."""
        for row in commit.accounting:
            namespace, service, component = row["service"]
            about = (namespace, service, component)
            numbers = (row["from_us"], row["to_us"], row["offered"], row["lost"])
            self.accounts.append(Account(partition, offset, about, *numbers))
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
        first, last = (slots[0] * self.slot_seconds * US, (slots[1] + 1) * self.slot_seconds * US)
        shares = [
            (account, account.share(first, last))
            for account in self.accounts
            if _speaks_of(account.service, service) and account.offset < offsets.get(account.partition, 0)
        ]
        counted = [(account, share) for account, share in shares if share]
        gaps = sum(
            gap.records
            for gap in self.gaps
            if since.get(gap.partition, 0) <= gap.offset < offsets.get(gap.partition, 0)
        )
        offered = round(sum(account.offered * share for account, share in counted)) if counted else None
        return Covered(offered, round(sum(account.lost * share for account, share in counted)), gaps)

    def to_mapping(self) -> dict[str, Any]:
        """The state as JSON."""
        return {
            "accounts": [
                (a.partition, a.offset, a.service, a.from_us, a.to_us, a.offered, a.lost) for a in self.accounts
            ],
            "gaps": [(g.partition, g.offset, g.records) for g in self.gaps],
        }

    @classmethod
    def from_mapping(cls, slot_seconds: int, state: Mapping[str, Any]) -> "Coverage":
        """The state a snapshot holds."""
        coverage = cls(slot_seconds)
        for partition, offset, service, *numbers in state["accounts"]:
            coverage.accounts.append(Account(partition, offset, tuple(service), *numbers))
        coverage.gaps.extend(Gap(*gap) for gap in state["gaps"])
        return coverage


def _speaks_of(account: Service, profile: Service) -> bool:
    """A part that a profile leaves empty matches anything."""
    return all(mine in ("", theirs) for theirs, mine in zip(account, profile, strict=True))
