"""What a rule on bodies names, and how a changed place is called in the event's `redacted`.

Apart from `redaction` and `columns`, which both need it, and from `rules`, which chooses among them.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from logger.hiding import Hiding
from logger.jsonpath import Step
from servelens.contract.events import Side

MOST_SLOTS: Final = 64
SLOT_LENGTH: Final = 128
_VISIBLE: Final = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")
_CUT_ESCAPE: Final = re.compile("%.?$")


@dataclass(frozen=True, slots=True)
class Target:
    """One rule on bodies: a `path`, or a `column` with, for packed rows, the order of their `columns`."""

    hiding: Hiding
    sides: frozenset[Side]
    label: str
    path: tuple[Step, ...] = ()
    column: str = ""
    columns: tuple[str, ...] = ()


def slot(*words: str) -> str:
    """The name of a place that was changed, in visible ASCII, of at most SLOT_LENGTH characters."""
    name = quote(".".join(words), safe=_VISIBLE)
    return name if len(name) <= SLOT_LENGTH else _CUT_ESCAPE.sub("", name[:SLOT_LENGTH])


def bounded(slots: Iterable[str]) -> tuple[str, ...]:
    """Each slot once, and no more than an event should carry: `more` stands for the rest."""
    whole = tuple(dict.fromkeys(slots))
    return whole if len(whole) <= MOST_SLOTS else (*whole[:MOST_SLOTS], "more")
