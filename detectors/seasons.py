"""Seasons of a reference: which hour of the day or of the week a moment belongs to, in UTC.

A reference with seasons compares a window with the hours it consists of, so that the night is not a drift of the day.
Called when a profile is built and when a pane is.
"""

from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from servelens.contract.times import US

COUNTS: Final = {"hour-of-day": 24, "hour-of-week": 168}
_MONDAY: Final = 3 * 24  # hours from Thursday, on which the epoch begins, back to its Monday

T = TypeVar("T", int, NDArray[np.int64])


def season_of(season: str, unix_us: T) -> T:
    """The number of the season, from 0: hours from midnight, or from Monday's."""
    hours = unix_us // (3600 * US)
    return (hours + _MONDAY) % COUNTS[season]
