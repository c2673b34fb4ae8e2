"""Requests that are not of the model's schema: values of another type, columns missing, other shapes.

They cannot be counted into columns, so the worker counts them by name beside the rows; here is which reason is which,
and the test of their rate. Apart from the columns' tests since no reference holds them: none is how many there were.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from detectors.algorithms.rate import TOLERANCE, least_rate, tail
from detectors.pane import Pane

NAME: Final = "(requests)"  # in the place of a column's name
# Why a payload of a known model could not be read → the pane's counter. What is cut off or compressed in a way that is
# not read says nothing of the schema.
COUNTERS: Final[Mapping[str, str]] = {
    "wrong_type": "wrong_type",
    "missing_column": "wrong_schema",
    "wrong_shape": "wrong_schema",
    "row_mismatch": "wrong_schema",
    "unknown_protocol": "wrong_schema",
    "wrong_length": "wrong_schema",
    "malformed": "wrong_schema",
    "not_json": "wrong_schema",
    "not_utf8": "wrong_schema",
    "duplicate_key": "wrong_schema",
    "non_finite": "wrong_type",
    "out_of_range": "wrong_type",
}
STATISTICS: Final[Mapping[str, str]] = {"type_rate": "wrong_type", "schema_rate": "wrong_schema"}


def counter_of(reason: str) -> str:
    """The pane's counter for a PayloadError's reason."""
    return COUNTERS.get(reason, "unreadable")


def test(statistic: str, pane: Pane, alpha: float) -> tuple[float, float, float]:
    """Rate, p-value under at most one point (binomial, one-sided), and the smallest rate with p ≤ alpha."""
    asked = pane.exchanges + pane.rejected
    hits = pane.counters.get(STATISTICS[statistic], 0)
    rows, bound = np.array([float(asked)]), np.array([TOLERANCE])
    p = tail(np.array([float(hits)]), rows, bound)
    least = least_rate(rows, bound, np.array([alpha]))
    return hits / max(asked, 1), float(p[0]), min(float(least[0]), 1.0)
