"""Dead letters: how a record that cannot be read is laid aside with its reason, and how it comes back. No I/O.

A letter is the record as it was, with three headers more. Replayed, it loses them and gets a tap and a row number of
its own, made of where the letter lies: so a letter that is replayed twice counts once. Called by `worker` and `replay`.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from detectors.intake import PayloadRecord
from servelens.contract.events import Record

MOST_WORDS: Final = 500  # characters of a problem
_OWN: Final = "servelens_"
REASON, PROBLEM, ORIGIN = _OWN + "reason", _OWN + "problem", _OWN + "offset"
_TAP: Final = ("ce_tapid", "ce_seq")


def letter_of(record: PayloadRecord, reason: str, problem: str, origin: str) -> list[tuple[str, bytes]]:
    """The headers of a letter; `origin` is `input/partition/offset`."""
    kept = [(name, value) for name, value in record.headers if not name.startswith(_OWN)]
    words = problem[:MOST_WORDS].encode(errors="replace")
    return [*kept, (REASON, reason.encode()), (PROBLEM, words), (ORIGIN, origin.encode())]


def about(headers: Sequence[tuple[str, bytes]]) -> Mapping[str, str]:
    """What a letter says of itself: reason, problem and origin."""
    own = {name.removeprefix(_OWN): value for name, value in headers if name.startswith(_OWN)}
    return {name: value.decode(errors="replace") for name, value in own.items()}


def replayed(record: PayloadRecord, topic_id: str, partition: int) -> Record:
    """The record for the retry topic, of a letter that lies at its offset of a dead-letter partition."""
    kept = [(name, value) for name, value in record.headers if not name.startswith(_OWN) and name not in _TAP]
    tap = f"letters-{topic_id}-{partition}".encode()
    own = (("ce_tapid", tap), ("ce_seq", str(record.offset + 1).encode()))
    return Record(record.key or b"", (*kept, *own), record.value or b"", record.timestamp)
