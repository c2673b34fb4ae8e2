"""Integer counts of some rows of one model on one profile's bins: what workers write and windows are summed from.

Adding is exact, so any split of the rows into panes and any order of addition gives the same bits. Built by the
worker (`Pane.of`), read back from the log by the evaluator (`from_mapping`, which trusts nothing).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Final

import numpy as np

from detectors import runs
from detectors.bins import Counts
from detectors.profile import Profile
from servelens.contract.errors import PayloadError
from servelens.contract.identity import ModelIdentity
from servelens.contract.table import Table

MOST_COUNTERS: Final = 256
# Counters of the requests that were of a known model and could not be read as its rows.
REJECTED: Final = ("unreadable", "wrong_schema", "wrong_type")
SEASON: Final = "season_"  # with a number behind it, the counter of the rows of a season
LARGEST: Final = 2**48  # of any count: so many sums of such panes stay within int64
_KINDS: Final = (np.uint8, np.uint16, np.uint32, np.int64)
_NONE: Final = np.zeros(0, np.int64)
_COUNTER_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,47}")


@dataclass(frozen=True, slots=True, eq=False)
class Pane:
    """Counts for (identity, profile, event-time slots [first, end)).

    `counts`: (profile.width,) int64, all columns one behind the other. `rows`: model inputs counted; `exchanges`:
    requests they came in. `counters`: what else was met, by name: late, undecodable ... `sealed`: the counts as they
    came, not yet looked at; then `counts` is empty.
    """

    profile: Profile
    identity: ModelIdentity
    slots: tuple[int, int]
    counts: Counts
    rows: int = 0
    exchanges: int = 0
    counters: Mapping[str, int] = field(default_factory=dict)
    sealed: str | None = None

    @classmethod
    def empty(cls, profile: Profile, identity: ModelIdentity, slots: tuple[int, int]) -> "Pane":
        """No rows: the zero of `add` over these slots."""
        return cls(profile, identity, slots, np.zeros(profile.width, np.int64))

    @classmethod
    def of(
        cls,
        profile: Profile,
        table: Table,
        *,
        slot: int = 0,
        identity: ModelIdentity | None = None,
        exchanges: int = 0,
        counters: Mapping[str, int] | None = None,
    ) -> "Pane":
        """Count a table, best of many events at once (`contract.table.concat`): the cost is one call a column.

        Columns the profile does not know are passed over; one the table lacks (predictions of a request without a
        response) counts nothing, not nulls. Raises PayloadError for text where the profile has numbers or the reverse.
        """
        counts = np.zeros(profile.width, np.int64)
        for column, part in zip(profile.columns, profile.slices, strict=True):
            values = table.columns.get(column.name)
            if values is not None:
                counts[part] = column.count(values)
        owner = profile.identity if identity is None else identity
        return cls(profile, owner, (slot, slot + 1), counts, table.rows, exchanges, dict(counters or {}))

    def column(self, name: str) -> Counts:
        """(bins,) counts of one column, a view; KeyError for a name the profile lacks."""
        return self.counts[self.profile.slices[self.profile.position[name]]]

    @property
    def rejected(self) -> int:
        """Requests that could not be read."""
        return sum(self.counters.get(name, 0) for name in REJECTED)

    @property
    def size(self) -> int:
        """What a window fills up by: rows, and requests that could not be read."""
        return self.rows + self.rejected

    @property
    def seasons(self) -> dict[int, int]:
        """Rows by season, of a profile that has any."""
        return {
            int(name.removeprefix(SEASON)): count for name, count in self.counters.items() if name.startswith(SEASON)
        }

    def split(self) -> list[Counts]:
        """The counts of every column, views in the profile's order."""
        return [self.counts[part] for part in self.profile.slices]

    def add(self, other: "Pane") -> "Pane":
        """The sum, over the slots from the first to the last of both; PayloadError for another model or profile."""
        if self.identity != other.identity or self.profile.digest != other.profile.digest:
            raise PayloadError("pane", "it is of another model or profile and cannot be added", reason="mixed")
        names = self.counters.keys() | other.counters.keys()
        return Pane(
            self.profile,
            self.identity,
            (min(self.slots[0], other.slots[0]), max(self.slots[1], other.slots[1])),
            self.counts + other.counts
            if self.counts.dtype == np.int64
            else self.counts.astype(np.int64) + other.counts,
            self.rows + other.rows,
            self.exchanges + other.exchanges,
            {name: self.counters.get(name, 0) + other.counters.get(name, 0) for name in sorted(names)},
        )

    def to_mapping(self) -> dict[str, Any]:
        """JSON form, equal for equal panes."""
        return {
            "identity": self.identity.labels(),
            "profile": self.profile.digest,
            "slots": list(self.slots),
            "rows": self.rows,
            "exchanges": self.exchanges,
            "counters": dict(sorted(self.counters.items())),
            "counts": runs.encode(self.counts) if self.sealed is None else self.sealed,
        }

    @classmethod
    def from_mapping(cls, profile: Profile, mapping: Mapping[str, Any]) -> "Pane":
        """The inverse of `to_mapping`; PayloadError, naming the field, for what is no pane of this profile."""
        return cls.seal(profile, mapping).opened()

    @classmethod
    def seal(cls, profile: Profile, mapping: Mapping[str, Any]) -> "Pane":
        """The same, with the counts as they came: for those that wait for a cut, which opens them."""
        if mapping.get("profile") != profile.digest:
            raise PayloadError("pane.profile", "it was counted on another profile", reason="profile")
        sealed = mapping.get("counts")
        if type(sealed) is not str:
            raise PayloadError("pane.counts", "expected a text of integers")
        rows, exchanges = _count(mapping, "rows"), _count(mapping, "exchanges")
        return cls(profile, _identity(mapping), _slots(mapping), _NONE, rows, exchanges, _counters(mapping), sealed)

    def opened(self) -> "Pane":
        """With its counts; PayloadError for counts that are none of this profile's."""
        if self.sealed is None:
            return self
        counts = runs.decode(self.sealed, self.profile.width, LARGEST)
        if self.profile.columns and int(np.add.reduceat(counts, self.profile.starts).max()) > self.rows:
            raise PayloadError("pane.counts", f"a column has more than the pane's {self.rows} rows")
        return replace(self, counts=counts, sealed=None)

    def packed(self) -> "Pane":
        """The same in the narrowest integers that hold it, a quarter of the memory: for those that are kept."""
        narrow = next(kind for kind in _KINDS if self.counts.max(initial=0) <= np.iinfo(kind).max)
        return replace(self, counts=self.counts.astype(narrow))


def total(panes: Iterable[Pane]) -> Pane:
    """The sum of one pane or more, in int64 again; TypeError for none."""
    added = reduce(Pane.add, panes)
    return added if added.counts.dtype == np.int64 else replace(added, counts=added.counts.astype(np.int64))


def _identity(mapping: Mapping[str, Any]) -> ModelIdentity:
    parts = mapping.get("identity")
    if not isinstance(parts, Mapping) or not all(isinstance(part, str) for part in parts.values()):
        raise PayloadError("pane.identity", "expected the five names of a model, all text")
    return ModelIdentity.from_mapping(parts)


def _slots(mapping: Mapping[str, Any]) -> tuple[int, int]:
    slots = mapping.get("slots")
    if not isinstance(slots, list | tuple) or len(slots) != 2 or {type(slot) for slot in slots} != {int}:
        raise PayloadError("pane.slots", "expected [first, end], two integers")
    first, end = slots
    if not -LARGEST < first < end < LARGEST:
        raise PayloadError("pane.slots", f"[{first}, {end}) holds no slot")
    return first, end


def _count(mapping: Mapping[str, Any], name: str, path: str = "pane") -> int:
    value = mapping.get(name)
    if type(value) is not int or not 0 <= value <= LARGEST:
        raise PayloadError(f"{path}.{name}", f"expected an integer from 0 to {LARGEST}")
    return value


def _counters(mapping: Mapping[str, Any]) -> dict[str, int]:
    counters = mapping.get("counters")
    if not isinstance(counters, Mapping) or len(counters) > MOST_COUNTERS:
        raise PayloadError("pane.counters", f"expected at most {MOST_COUNTERS} named counts")
    for name in counters:
        if not isinstance(name, str) or not _COUNTER_NAME.fullmatch(name):
            raise PayloadError("pane.counters", "a name is not lowercase letters, digits and underscores")
    return {name: _count(counters, name, "pane.counters") for name in sorted(counters)}
