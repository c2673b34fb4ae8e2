"""Which profiles count a payload: looked up by model identity, and by slot where one was announced to follow another.

A *line* is the profiles of one identity and segment: the one of the folder, if any, from the beginning of time, then
those announced, each from its moment on. No I/O but the folder's reading.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Final

from detectors.profile import Profile
from detectors.profile_file import read_profile
from servelens.contract.errors import ConfigError
from servelens.contract.identity import ModelIdentity
from servelens.contract.times import US

SUFFIX: Final = ".profile"
MOST_NAMES: Final = 10_000  # identities remembered; the names come from clients' paths
_BEGINNING: Final = -1


@dataclass(slots=True)
class Line:
    """The profiles of one identity and segment in order of their moments (Unix microseconds)."""

    identity: ModelIdentity
    segment: str
    moments: list[int] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)

    def insert(self, profile: Profile, from_us: int) -> None:
        """Add one; of two for the same moment the later told stands."""
        at = bisect_right(self.moments, from_us)
        if at and self.moments[at - 1] == from_us:
            self.profiles[at - 1] = profile
            return
        self.moments.insert(at, from_us)
        self.profiles.insert(at, profile)

    def active(self, slot: int, slot_seconds: int) -> Profile | None:
        """The profile that counts in a slot."""
        at = self._at(slot, slot_seconds)
        return None if at < 0 else self.profiles[at]

    def reign(self, slot: int, slot_seconds: int) -> "Reign":
        """Since and until when the profile counts that counts in a slot, and which ones came before and come after."""
        at = self._at(slot, slot_seconds)
        following = at + 1 < len(self.moments)
        return Reign(
            since=first_slot(self.moments[at], slot_seconds) if at >= 0 else _BEGINNING,
            until=first_slot(self.moments[at + 1], slot_seconds) if following else None,
            previous=self.profiles[at - 1].digest if at > 0 else "",
            following=self.profiles[at + 1].digest if following else "",
        )

    def _at(self, slot: int, slot_seconds: int) -> int:
        return bisect_right(self.moments, slot, key=lambda moment: first_slot(moment, slot_seconds)) - 1


@dataclass(frozen=True, slots=True)
class Reign:
    """A profile's time in its line: from the slot `since` to the one before `until` (None: no end is announced)."""

    since: int
    until: int | None
    previous: str
    following: str


def first_slot(from_us: int, slot_seconds: int) -> int:
    """The first slot that lies wholly after a moment; the beginning of time for none."""
    return _BEGINNING if from_us < 0 else -(-from_us // (slot_seconds * US))


class Book:
    """Profiles by identity. A part a profile leaves empty matches anything; the profile that names most parts wins."""

    def __init__(self, profiles: Iterable[Profile], slot_seconds: int = 10) -> None:
        self.slot_seconds = slot_seconds
        self.by_digest: dict[str, Profile] = {}
        self.lines: dict[tuple[ModelIdentity, str], Line] = {}
        self._doubled: set[tuple[ModelIdentity, str]] = set()
        self._found: dict[ModelIdentity, tuple[Line, ...]] = {}
        for profile in profiles:
            key = (profile.identity, str(profile.segment or ""))
            if key in self.lines and self.lines[key].profiles[0].digest != profile.digest:
                self._doubled.add(key)  # two files that fit equally well: neither counts
            self.announce(profile, _BEGINNING)

    def announce(self, profile: Profile, from_us: int) -> None:
        """A profile counts from a moment on (Unix microseconds), until another of its line does."""
        key = (profile.identity, str(profile.segment or ""))
        self.by_digest[profile.digest] = profile
        self.lines.setdefault(key, Line(*key)).insert(profile, from_us)
        self._found.clear()

    def line_of(self, profile: Profile) -> Line:
        """The line a profile of this book belongs to."""
        return self.lines[profile.identity, str(profile.segment or "")]

    def find(self, identity: ModelIdentity, slot: int) -> tuple[Profile, ...]:
        """The profiles that count a payload in a slot: that of all rows and those of segments; none if two fit alike.

        A payload that does not say its model name (KServe's agent never does) fits any; it must then be the only one.
        """
        if identity not in self._found:
            if len(self._found) >= MOST_NAMES:
                self._found.clear()
            self._found[identity] = self._search(identity)
        active = (line.active(slot, self.slot_seconds) for line in self._found[identity])
        return tuple(profile for profile in active if profile is not None)

    def _search(self, identity: ModelIdentity) -> tuple[Line, ...]:
        fitting = [line for line in self.lines.values() if _fits(line.identity, identity)]
        most = max((_named(line.identity) for line in fitting), default=0)
        best = [line for line in fitting if _named(line.identity) == most]
        keys = {(line.identity, line.segment) for line in best}
        best.sort(key=lambda line: line.segment)  # that of all rows first
        return tuple(best) if len({line.identity for line in best}) == 1 and not keys & self._doubled else ()


def _named(identity: ModelIdentity) -> int:
    return sum(1 for part in astuple(identity) if part)


def _fits(profile: ModelIdentity, payload: ModelIdentity) -> bool:
    return all(
        mine == theirs or not mine or (not theirs and name in ("modelname", "revision"))
        for name, mine, theirs in zip(ModelIdentity.__slots__, astuple(profile), astuple(payload), strict=True)
    )


def read_book(folder: Path | None, slot_seconds: int = 10) -> Book:
    """Every `*.profile` file of a folder; ConfigError if there is none. Without a folder: those announced alone."""
    if folder is None:
        return Book((), slot_seconds)
    files = sorted(folder.glob(f"*{SUFFIX}"))
    if not files:
        remedy = f"Build one: servelens profile build DATA --model-file model.yaml --out {folder}/NAME{SUFFIX}."
        raise ConfigError("--profiles", f"no *{SUFFIX} file in {folder}", remedy)
    return Book((read_profile(path) for path in files), slot_seconds)
