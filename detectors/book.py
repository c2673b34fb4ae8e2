"""Which profile a payload belongs to: the profiles of a folder, looked up by model identity."""

from collections.abc import Iterable
from dataclasses import astuple
from pathlib import Path
from typing import Final

from detectors.profile import Profile, read_profile
from servelens.contract.errors import ConfigError
from servelens.contract.identity import ModelIdentity

SUFFIX: Final = ".profile"
MOST_NAMES: Final = 10_000  # identities remembered; the names come from clients' paths


class Book:
    """Profiles by identity. A part a profile leaves empty matches anything; the profile that names most parts wins."""

    def __init__(self, profiles: Iterable[Profile]) -> None:
        self.by_digest = {profile.digest: profile for profile in profiles}
        self._found: dict[ModelIdentity, Profile | None] = {}

    def find(self, identity: ModelIdentity) -> Profile | None:
        """The profile of a payload's identity, None if there is none or two fit equally well.

        A payload that does not say its model name (KServe's agent never does) fits any; it must then be the only one.
        """
        if identity not in self._found:
            if len(self._found) >= MOST_NAMES:
                self._found.clear()
            self._found[identity] = self._search(identity)
        return self._found[identity]

    def _search(self, identity: ModelIdentity) -> Profile | None:
        fitting = [profile for profile in self.by_digest.values() if _fits(profile.identity, identity)]
        most = max(map(_named, fitting), default=0)
        best = [profile for profile in fitting if _named(profile) == most]
        return best[0] if len(best) == 1 else None


def _named(profile: Profile) -> int:
    return sum(1 for part in astuple(profile.identity) if part)


def _fits(profile: ModelIdentity, payload: ModelIdentity) -> bool:
    return all(
        mine == theirs or not mine or (not theirs and name in ("modelname", "revision"))
        for name, mine, theirs in zip(ModelIdentity.__slots__, astuple(profile), astuple(payload), strict=True)
    )


def read_book(folder: Path) -> Book:
    """Every `*.profile` file of a folder; ConfigError if there is none."""
    files = sorted(folder.glob(f"*{SUFFIX}"))
    if not files:
        remedy = f"Build one: servelens profile build DATA --model-file model.yaml --out {folder}/NAME{SUFFIX}."
        raise ConfigError("--profiles", f"no *{SUFFIX} file in {folder}", remedy)
    return Book(read_profile(path) for path in files)
