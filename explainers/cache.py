"""Answers of the predictor kept for a short while: bounded in number and age. No I/O; the clock is given in."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

from explainers.coding import Array

MAX_SECONDS = 60.0  # a model may be replaced at any time, and an explanation of the old one is wrong


class Cache:
    """The newest `size` outputs, each (outputs,) float64, none older than `seconds`."""

    def __init__(self, size: int, seconds: float = MAX_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._size, self._seconds, self._clock = size, min(seconds, MAX_SECONDS), clock
        self._kept: OrderedDict[Hashable, tuple[float, Array]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable) -> Array | None:
        """What was put under that key, unless it is too old."""
        found = self._kept.get(key)
        if found is None:
            return None
        if found[0] < self._clock():
            del self._kept[key]
            return None
        return found[1]

    def put(self, key: Hashable, outputs: Array) -> None:
        """Keep it; the oldest leaves if there are too many."""
        self._kept[key] = (self._clock() + self._seconds, outputs)
        self._kept.move_to_end(key)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
