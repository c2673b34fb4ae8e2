"""Where the rows went: the parts of a column whose share changed most, in words a reader can act on.

Apart from the algorithms since it explains and never decides. Called by `statistics` for tests that fired.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from detectors.bins import Counts, QuantileBins
from detectors.columns import NULL, UNSEEN, ColumnReference

MOST: Final = 3  # parts shown
RANGES: Final = 8  # a numeric column's bins are shown in about so many ranges of equal reference share
_ONE_BIN: Final = {"null_rate": (NULL,), "unseen_rate": (UNSEEN,), "range_rate": (0, UNSEEN)}


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a column, the share of the rows it held in the reference (`then`) and in the window (`now`)."""

    part: str
    then: float
    now: float


def contributions(reference: ColumnReference, counts: Counts, statistic: str) -> tuple[Share, ...]:
    """The parts with the largest change of share, at most `MOST`, largest first (ties in the order of the bins)."""
    single = _ONE_BIN.get(statistic)
    parts = [_one_bin(reference, at) for at in single] if single else _parts(reference)
    return _shares(parts, reference.counts, counts)


def compared(reference: ColumnReference, there: Counts, here: Counts) -> tuple[Share, ...]:
    """The same of two windows: `there` stands for then, `here` for now."""
    return _shares(_parts(reference), there, here)


def _shares(parts: Iterable[tuple[str, int, int]], then: Counts, now: Counts) -> tuple[Share, ...]:
    before, after = max(int(then.sum()), 1), max(int(now.sum()), 1)
    shares = [
        Share(name, int(then[first:stop].sum()) / before, int(now[first:stop].sum()) / after)
        for name, first, stop in parts
    ]
    return tuple(sorted(shares, key=lambda share: -abs(share.now - share.then))[:MOST])


def _one_bin(reference: ColumnReference, at: int) -> tuple[str, int, int]:
    number = at % reference.bins.size
    return reference.bins.label(number), number, number + 1


def _parts(reference: ColumnReference) -> Iterable[tuple[str, int, int]]:
    """(name, first bin, bin behind the last) of every part."""
    if isinstance(reference.bins, QuantileBins):
        return _ranges(reference, reference.bins)
    return [_one_bin(reference, number) for number in range(reference.bins.size)]


def _ranges(reference: ColumnReference, bins: QuantileBins) -> Iterable[tuple[str, int, int]]:
    """Neighbouring bins together until they hold 1 / `RANGES` of the reference; nulls are left to their own test."""
    first, held, last = 0, 0, bins.size - 2
    wanted = (reference.rows - reference.nulls) / RANGES
    for number in range(bins.size - 1):
        held += int(reference.counts[number])
        if held >= wanted or number == last:
            yield bins.span(first, number), first, number + 1
            first, held = number + 1, 0
