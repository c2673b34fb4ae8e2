"""Frozen bins: how a value becomes the number of a counter, the same for the reference and for every later window.

Apart from the references in `columns`, which say what was counted there. Three layouts, each ending in the null bin:
quantile ranges (the outermost of them outside of what the reference held), text levels, number levels. Counting is
exact, so merging is addition and replay is bit-equal.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from servelens.contract.errors import StateError

Values: TypeAlias = NDArray[Any]  # (n,) float64 with NaN = null, or object of str with None = null
Counts: TypeAlias = NDArray[np.int64]  # (bins,)

MAX_BINS: Final = 64  # ranges of a numeric column, but for those outside of its limits
MAX_LEVELS: Final = 256  # kept levels of a text column; rarer ones share the unseen bin
LOW_CARDINALITY: Final = 20  # an integer column with no more distinct values is counted by value
_MAX: Final = np.finfo(np.float64).max
RANGE_TOLERANCE: Final = 0.1  # of the reference's span, beyond which a value is out of range
ROUNDING: Final = 1e-6  # wider than a float32 round trip (6e-8), so that 0.1 sent as FP32 stays on its side of an edge


class Bins(Protocol):
    """What a column reference needs of a layout."""

    @property
    def kind(self) -> str:
        """`numeric` (ordered ranges) or `categorical` (levels)."""

    @property
    def of_text(self) -> bool:
        """Whether it counts object arrays of str; float64 arrays otherwise."""

    @property
    def size(self) -> int:
        """Number of counters, the null bin (always the last) included."""

    def index(self, values: Values) -> NDArray[np.intp]:
        """(n,) values to (n,) bin numbers; every value has one."""

    def label(self, number: int) -> str:
        """The bin in words."""

    def to_mapping(self) -> dict[str, Any]:
        """Canonical JSON form, read back by `bins_from_mapping`."""


@dataclass(frozen=True, slots=True, eq=False)
class QuantileBins:
    """Ranges (edge[i-1], edge[i]], open at both ends, then null. NaN and ±inf count as null: no model can use them.

    `limited`: the outermost edges are the limits of what is in range; else nothing is out of it.
    """

    edges: NDArray[np.float64]  # (≤ 65,) rising
    limited: bool = False
    kind: str = field(default="numeric", init=False)
    of_text: bool = field(default=False, init=False)

    @property
    def size(self) -> int:
        """Counters, null included."""
        return len(self.edges) + 2

    def index(self, values: Values) -> NDArray[np.intp]:
        """(n,) values to (n,) bin numbers."""
        numbers = np.searchsorted(self.edges, values, "left")
        numbers[~np.isfinite(values)] = self.size - 1
        return numbers

    def label(self, number: int) -> str:
        """The bin in words."""
        return "null" if number == self.size - 1 else self.span(number, number)

    def span(self, first: int, last: int) -> str:
        """The neighbouring ranges `first` to `last` as one, `(1.5, 2.25]`; four significant digits."""
        above = f"> {self.edges[first - 1]:.4g}" if first > 0 else ""
        below = f"≤ {self.edges[last]:.4g}" if last < len(self.edges) else ""
        if above and below:
            return f"({self.edges[first - 1]:.4g}, {self.edges[last]:.4g}]"
        return above or below or "any number"

    def to_mapping(self) -> dict[str, Any]:
        """Canonical JSON form."""
        return {"layout": "limited" if self.limited else "quantiles", "edges": self.edges.tolist()}


class _Codes(dict[str | None, int]):
    """Level to bin number; what is missing is unseen."""

    unseen = 0

    def __missing__(self, key: str | None) -> int:
        return self.unseen


@dataclass(frozen=True, slots=True, eq=False)
class TextLevels:
    """One bin a level (sorted), then unseen, then null."""

    levels: tuple[str, ...]
    kind: str = field(default="categorical", init=False)
    of_text: bool = field(default=True, init=False)
    _codes: _Codes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        codes = _Codes({level: number for number, level in enumerate(self.levels)})
        codes[None] = self.size - 1
        codes.unseen = self.size - 2
        object.__setattr__(self, "_codes", codes)

    @property
    def size(self) -> int:
        """Counters, null included."""
        return len(self.levels) + 2

    def index(self, values: Values) -> NDArray[np.intp]:
        """(n,) values to (n,) bin numbers."""
        return np.fromiter(map(self._codes.__getitem__, values), np.intp, len(values))

    def label(self, number: int) -> str:
        """The bin in words."""
        return (*self.levels, "unseen", "null")[number]

    def to_mapping(self) -> dict[str, Any]:
        """Canonical JSON form."""
        return {"layout": "texts", "levels": list(self.levels)}


@dataclass(frozen=True, slots=True, eq=False)
class NumberLevels:
    """One bin a value of a low-cardinality integer or boolean column, then unseen, then null (NaN and ±inf)."""

    levels: NDArray[np.float64]  # (≤ 20,) rising
    kind: str = field(default="categorical", init=False)
    of_text: bool = field(default=False, init=False)

    @property
    def size(self) -> int:
        """Counters, null included."""
        return len(self.levels) + 2

    def index(self, values: Values) -> NDArray[np.intp]:
        """(n,) values to (n,) bin numbers."""
        if not len(self.levels):
            return np.where(np.isfinite(values), 0, 1)
        numbers = np.minimum(np.searchsorted(self.levels, values, "left"), len(self.levels) - 1)
        numbers[self.levels[numbers] != values] = self.size - 2
        numbers[~np.isfinite(values)] = self.size - 1
        return numbers

    def label(self, number: int) -> str:
        """The bin in words."""
        return (*(f"{level:.15g}" for level in self.levels), "unseen", "null")[number]

    def to_mapping(self) -> dict[str, Any]:
        """Canonical JSON form."""
        return {"layout": "numbers", "levels": self.levels.tolist()}


def quantile_bins(values: NDArray[np.float64]) -> QuantileBins:
    """Ranges of about equal reference counts from (n,) finite values.

    An edge lies halfway between two neighbouring distinct values, and a value that holds more than one quantile
    (an atom: the zero of a zero-inflated column, a constant) gets an edge on either side, so rounding moves no
    row and a shift off an atom shows in either direction.
    """
    distinct, counts = np.unique(values, return_counts=True)
    if not len(distinct):
        return QuantileBins(np.empty(0))
    ranks = -(-np.arange(1, MAX_BINS) * len(values) // MAX_BINS)  # ceil, in integers: the same on every platform
    at, held = np.unique(np.searchsorted(np.cumsum(counts), ranks, "left"), return_counts=True)
    margin = ROUNDING * (np.abs(distinct[[0, -1]]).max() or 1.0)
    ends = np.clip([float(distinct[0]) - 2 * float(margin), float(distinct[-1]) + 2 * float(margin)], -_MAX, _MAX)
    padded = np.concatenate((ends[:1], distinct, ends[1:]))
    between = padded[:-1] / 2 + padded[1:] / 2  # halved first: the sum of two large values may overflow
    atoms = at[held > 1]
    inner = at[(at < len(distinct) - 1) | (held > 1)]  # nothing lies above the last value unless it is an atom
    return _limited(np.unique(np.concatenate((between[atoms], between[inner + 1]))), distinct, 3 * float(margin))


def _limited(edges: NDArray[np.float64], distinct: NDArray[np.float64], least: float) -> QuantileBins:
    """The same edges between the limits of the range; `least`: how far these are from the reference's ends at least."""
    low, high = float(distinct[0]), float(distinct[-1])
    pad = max(RANGE_TOLERANCE * ((high / 2 - low / 2) * 2 or abs(low) or 1.0), least)
    below, above = max(low - pad, -_MAX), min(high + pad, _MAX)
    ends = np.array([below, above])
    fits = below < min(low, *edges.tolist()) and above > max(high, *edges.tolist())
    return QuantileBins(np.concatenate((ends[:1], edges, ends[1:])), limited=True) if fits else QuantileBins(edges)


def text_levels(values: Iterable[str | None]) -> TextLevels:
    """The most frequent levels, at most `MAX_LEVELS` (ties by name), in order of name."""
    counts = Counter(value for value in values if value is not None)
    kept = sorted(counts, key=lambda level: (-counts[level], level))[:MAX_LEVELS]
    return TextLevels(tuple(sorted(kept)))


def fit_bins(values: Values, feature_type: str) -> Bins:
    """The layout for a reference column: (n,) values and the schema's type of it."""
    if values.dtype == object:
        return text_levels(values)
    finite = values[np.isfinite(values)]
    if feature_type not in ("integer", "boolean"):
        return quantile_bins(finite)
    distinct = np.unique(finite)
    return NumberLevels(distinct) if 0 < len(distinct) <= LOW_CARDINALITY else quantile_bins(finite)


def _rising(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    if not (np.isfinite(array).all() and (np.diff(array) > 0).all()):
        raise StateError("edges or levels are not rising numbers")
    return array


LAYOUTS: Final[Mapping[str, Callable[[Mapping[str, Any]], Bins]]] = {
    "quantiles": lambda mapping: QuantileBins(_rising(mapping["edges"])),
    "limited": lambda mapping: QuantileBins(_rising(mapping["edges"]), limited=True),
    "numbers": lambda mapping: NumberLevels(_rising(mapping["levels"])),
    "texts": lambda mapping: TextLevels(tuple(mapping["levels"])),
}


def bins_from_mapping(mapping: Mapping[str, Any]) -> Bins:
    """The inverse of `to_mapping`; StateError for a layout this version does not know."""
    layout = LAYOUTS.get(mapping["layout"])
    if layout is None:
        raise StateError(f"unknown layout of bins {mapping['layout']!r:.40}")
    return layout(mapping)
