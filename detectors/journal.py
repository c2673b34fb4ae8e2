"""The evaluators' journal: who holds the lease, and every cut, in the one partition of the lease topic. No I/O.

The same rule as the fence: an entry counts if its epoch is the last claim's. A cut says which slots a window is made of
and up to which offset of each panes partition; whoever replays the journal makes the same windows from the same panes,
so a verdict is a function of the profile and the recorded cut, whatever died in between.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

import orjson

from servelens.contract.errors import PayloadError


@dataclass(frozen=True, slots=True)
class Claim:
    """An evaluator takes the lease."""

    epoch: str
    evaluator: str


@dataclass(frozen=True, slots=True)
class Renew:
    """The holder is alive; standbys wait from here."""

    epoch: str


@dataclass(frozen=True, slots=True)
class Cut:
    """A window: slots `first` to `last`, both in, of panes below `offsets` (partition, as text → offset).

    `previous`, `following`: digests of the profiles that counted before its first slot or count after its last.
    """

    epoch: str
    number: int
    model: str
    digest: str
    first: int
    last: int
    offsets: Mapping[str, int]
    previous: str = ""
    following: str = ""

    @property
    def slots(self) -> tuple[int, int]:
        """The slots as a pane has them: the first, and the one behind the last."""
        return self.first, self.last + 1


@dataclass(frozen=True, slots=True)
class Done:
    """The verdicts of all cuts up to that number are in Kafka."""

    epoch: str
    number: int


Entry = Claim | Renew | Cut | Done
_KINDS: Final[Mapping[str, type[Claim] | type[Renew] | type[Cut] | type[Done]]] = {
    "claim": Claim,
    "renew": Renew,
    "cut": Cut,
    "done": Done,
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


def encode(entry: Entry) -> bytes:
    """An entry as the value of a record of the lease topic."""
    return orjson.dumps({"t": _NAMES[type(entry)]} | {name: getattr(entry, name) for name in entry.__slots__})


def decode(value: bytes | None) -> Entry:
    """An entry from a record's value; PayloadError for anything that is none."""
    try:
        fields = orjson.loads(value or b"")
        return _KINDS[fields.pop("t")](**fields)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise PayloadError("lease", "a record that is no claim, renew, cut or done") from error


Effect = Literal["claimed", "renewed", "cut", "done", "ignored"]


@dataclass(slots=True)
class Journal:
    """The state after the entries seen so far: holder, number of accepted cuts, number published."""

    at: int = 0
    epoch: str = ""
    cuts: int = 0
    done: int = 0

    def apply(self, offset: int, entry: Entry) -> Effect:
        """Fold one entry, in offset order."""
        self.at = offset + 1
        if isinstance(entry, Claim):
            self.epoch = entry.epoch
            return "claimed"
        if entry.epoch != self.epoch:
            return "ignored"
        if isinstance(entry, Renew):
            return "renewed"
        if isinstance(entry, Cut):
            return self._cut(entry)
        self.done = max(self.done, min(entry.number, self.cuts))
        return "done"

    def _cut(self, cut: Cut) -> Effect:
        if cut.number != self.cuts + 1:
            return "ignored"
        self.cuts = cut.number
        return "cut"

    def to_mapping(self) -> dict[str, Any]:
        """The state as JSON."""
        return asdict(self)


@dataclass(slots=True)
class Lease:
    """When one evaluator may claim. Its own clock alone decides how long silence lasts; the log decides who holds."""

    timeout: float  # seconds without a sign of the holder
    epoch: str = ""
    quiet_since: float = field(default=0.0)
    claiming: bool = False

    def see(self, entry: Entry, effect: Effect, now: float) -> None:
        """Note a sign of life, which any entry that counts is, and the arrival of an own claim."""
        if effect != "ignored":
            self.quiet_since = now
        if isinstance(entry, Claim) and entry.epoch == self.epoch:
            self.claiming = False

    def holds(self, journal: Journal) -> bool:
        """Whether this evaluator is the active one, as far as it has read."""
        return bool(self.epoch) and self.epoch == journal.epoch

    def may_claim(self, now: float) -> bool:
        """Whether the holder has been silent for the timeout and no own claim is on its way."""
        return not self.claiming and now - self.quiet_since >= self.timeout

    def claim(self, epoch: str, evaluator: str) -> Claim:
        """The claim to append."""
        self.epoch, self.claiming = epoch, True
        return Claim(epoch, evaluator)
