"""Counts as a list of integers for the log: positive numbers as they are, -n for n noughts in a row, none at the end.

One list for a whole pane, so that a thousand panes are read in a tenth of a second, and one form for equal counts.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from detectors.bins import Counts
from servelens.contract.errors import PayloadError

_FIELD = "pane.counts"


def encode(counts: Counts) -> list[int]:
    """The list of (bins,) counts.

    >>> encode(np.array([3, 0, 0, 1, 0]))
    [3, -2, 1]
    """
    held = np.flatnonzero(counts)
    if not len(held):
        return []
    before = np.diff(held, prepend=-1) - 1  # noughts in front of each
    pairs = np.stack((-before, counts[held].astype(np.int64)), axis=1).reshape(-1)
    listed: list[int] = pairs[pairs != 0].tolist()
    return listed


def decode(listed: Sequence[Any], width: int, largest: int) -> Counts:
    """(width,) int64 counts; PayloadError for what `encode` does not write, or counts above `largest`."""
    if type(listed) is not list:
        raise PayloadError(_FIELD, "expected a list of integers")
    try:
        numbers = np.array(listed or np.empty(0, np.int64))
    except (OverflowError, ValueError) as error:
        raise PayloadError(_FIELD, "expected a list of integers") from error
    if numbers.dtype != np.int64 or numbers.ndim != 1:
        raise PayloadError(_FIELD, "expected a list of integers")
    counted = numbers > 0
    steps = np.where(counted, 1, -np.maximum(numbers, -width - 1))
    ends = np.cumsum(steps)
    canonical = not len(numbers) or (
        counted[-1] and bool((steps > 0).all()) and bool((counted[1:] | counted[:-1]).all())
    )
    if not canonical or (len(ends) and ends[-1] > width) or (len(numbers) and numbers.max() > largest):
        raise PayloadError(_FIELD, f"not the counts of {width} bins", reason="wrong_bin")
    dense = np.zeros(width, np.int64)
    dense[ends[counted] - 1] = numbers[counted]
    return dense
