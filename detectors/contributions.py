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
_ONE_BIN: Final = {"null_rate": NULL, "unseen_rate": UNSEEN}


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a column, the share of the rows it held in the reference (`then`) and in the window (`now`)."""

    part: str
    then: float
    now: float


def contributions(reference: ColumnReference, counts: Counts, statistic: str) -> tuple[Share, ...]:
    """The parts with the largest change of share, at most `MOST`, largest first (ties in the order of the bins)."""
    parts = [_one_bin(reference, _ONE_BIN[statistic])] if statistic in _ONE_BIN else _parts(reference)
    rows, seen = max(reference.rows, 1), max(int(counts.sum()), 1)
    shares = [
        Share(name, int(reference.counts[first:stop].sum()) / rows, int(counts[first:stop].sum()) / seen)
        for name, first, stop in parts
    ]
    return tuple(sorted(shares, key=lambda share: -abs(share.now - share.then))[:MOST])


def _one_bin(reference: ColumnReference, at: int) -> tuple[str, int, int]:
    number = reference.bins.size + at
    return reference.bins.label(number), number, number + 1


def _parts(reference: ColumnReference) -> Iterable[tuple[str, int, int]]:
    """(name, first bin, bin behind the last) of every part."""
    if isinstance(reference.bins, QuantileBins):
        return _ranges(reference, reference.bins)
    return [_one_bin(reference, number - reference.bins.size) for number in range(reference.bins.size)]


def _ranges(reference: ColumnReference, bins: QuantileBins) -> Iterable[tuple[str, int, int]]:
    """Neighbouring bins together until they hold 1 / `RANGES` of the reference; nulls are left to their own test."""
    first, held, last = 0, 0, bins.size - 2
    wanted = (reference.rows - reference.nulls) / RANGES
    for number in range(bins.size - 1):
        held += int(reference.counts[number])
        if held >= wanted or number == last:
            yield bins.span(first, number), first, number + 1
            first, held = number + 1, 0
