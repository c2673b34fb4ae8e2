"""A histogram fed in bulk: an observation is one list item here, and the instrument sees the sums now and then.

Apart since both the tap and the shipper observe tens of thousands of times a second, and prometheus-client, which has
no bulk observe, locks and writes to a shared file at each.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any


class BulkHistogram:
    """`child` is a labelled histogram with these upper `bounds`."""

    def __init__(self, child: Any, bounds: Sequence[float]) -> None:
        self._child, self._bounds = child, bounds
        self._counts, self._sum = [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        """Note one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def flush(self) -> None:
        """Bring the instrument up to date."""
        for bucket, count in zip(self._child._buckets, self._counts, strict=True):  # noqa: SLF001
            if count:
                bucket.inc(count)
        self._child._sum.inc(self._sum)  # noqa: SLF001
        self._counts, self._sum = [0] * len(self._counts), 0.0
