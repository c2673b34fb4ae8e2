"""Counts as a text of integers for the log: positive numbers as they are, -n for n noughts in a row, none at the end.

One text for a whole pane, which a reader that only looks at the rest of it passes over; one form for equal counts.
"""

import re
from typing import Final

import numpy as np

from detectors.bins import Counts
from servelens.contract.errors import PayloadError

_FIELD: Final = "pane.counts"
_TEXT: Final = re.compile(r"-?[0-9]{1,18}(?: -?[0-9]{1,18})*")


def encode(counts: Counts) -> str:
    """The text of (bins,) counts.

    >>> encode(np.array([3, 0, 0, 1, 0]))
    '3 -2 1'
    """
    held = np.flatnonzero(counts)
    before = np.diff(held, prepend=-1) - 1  # noughts in front of each
    pairs = np.stack((-before, counts[held].astype(np.int64)), axis=1).reshape(-1)
    return " ".join(map(str, pairs[pairs != 0].tolist()))


def decode(text: str, width: int, largest: int) -> Counts:
    """(width,) int64 counts; PayloadError for what `encode` does not write, or counts above `largest`."""
    dense = np.zeros(width, np.int64)
    if text == "":
        return dense
    if not _TEXT.fullmatch(text):
        raise PayloadError(_FIELD, "expected integers with a space between")
    numbers = np.fromstring(text, np.int64, sep=" ")
    counted = numbers > 0
    steps = np.where(counted, 1, -np.maximum(numbers, -width - 1))
    ends = np.cumsum(steps)
    apart = bool((steps > 0).all()) and bool((counted[1:] | counted[:-1]).all())  # no nought, no two runs in a row
    if not (apart and counted[-1]) or ends[-1] > width or numbers.max() > largest:
        raise PayloadError(_FIELD, f"not the counts of {width} bins", reason="wrong_bin")
    dense[ends[counted] - 1] = numbers[counted]
    return dense
