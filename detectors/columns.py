"""What the reference of one column knows: its bins, what was counted in them, and how far that can be trusted.

Apart from `bins`, which say only where a value belongs. Built by `profile`, read by every algorithm.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from detectors.bins import Bins, Counts, QuantileBins, Values, bins_from_mapping, fit_bins
from detectors.design_effect import Excess, Orders, design_effect, excess, growth, null_excess
from servelens.contract.errors import PayloadError, StateError

NULL: Final = -1  # the null bin of every column
UNSEEN: Final = -2  # the unseen bin of a categorical one
FEWEST: Final = 100  # independent rows below which a reference says nothing of a column's distribution


@dataclass(frozen=True, slots=True, eq=False)
class ColumnReference:
    """One column of a profile.

    `family`: `feature` or `prediction`. `counts`: (bins.size,) int64 of the reference. `deff`, `null_deff`: design
    effects (≥ 1) of the values and of their absence. `gamma`: the probability granted to the event that the truth
    lies further from this reference than `radius` or `noncentrality` say. `low`, `high`: range of the finite values.
    `seasonal`: (seasons, bins.size) int64, the counts by season; None for a reference without.
    """

    name: str
    family: str
    bins: Bins
    counts: Counts
    deff: float
    null_deff: float
    gamma: float
    low: float | None = None
    high: float | None = None
    seasonal: Counts | None = None
    cumulative: NDArray[np.float64] = field(init=False, repr=False)  # (bins.size - 1,) of the rows that are not null

    def __post_init__(self) -> None:
        object.__setattr__(self, "cumulative", np.cumsum(self.counts[:-1]) / max(self.rows - self.nulls, 1))

    @property
    def kind(self) -> str:
        """`numeric` or `categorical`."""
        return self.bins.kind

    @property
    def rows(self) -> int:
        """Reference rows, nulls included."""
        return int(self.counts.sum())

    @property
    def nulls(self) -> int:
        """Reference rows without a value."""
        return int(self.counts[NULL])

    @property
    def null_rate(self) -> float:
        """Share of the reference rows without a value."""
        return self.nulls / max(self.rows, 1)

    @property
    def independent(self) -> float:
        """Reference rows that are not null, as independent ones."""
        return (self.rows - self.nulls) / self.deff

    @property
    def blind(self) -> bool:
        """Whether its rows hang together so much, or are so few, that its distribution cannot be judged by them."""
        return self.independent < FEWEST

    @property
    def limited(self) -> bool:
        """Whether it knows values out of range."""
        return isinstance(self.bins, QuantileBins) and self.bins.limited

    def mixed(self, seasons: Mapping[int, int]) -> "ColumnReference":
        """The reference of a window that holds so many rows of each season: each season's share of its own counts.

        Its rows are the effective number of such a mixture, 1 / sum(w² / n) (Kish 1965); none for a season that the
        reference lacks, so that nothing is judged by it.
        """
        if self.seasonal is None:
            return self
        held, rows = self.seasonal[list(seasons)], np.array(list(seasons.values()), np.float64)
        sizes = held.sum(1)
        if not len(sizes) or not sizes.all():
            return replace(self, counts=np.zeros_like(self.counts), seasonal=None)
        weights = rows / rows.sum()
        effective = 1.0 / float((weights**2 / sizes).sum())
        counts = np.rint(effective * (weights / sizes) @ held).astype(np.int64)
        return replace(self, counts=counts, seasonal=None)

    @property
    def radius(self) -> float:
        """How far the truth's cumulative curve may lie from the reference's.

        Dvoretzky-Kiefer-Wolfowitz (Massart 1990) at `gamma`, for rows / deff independent rows.
        """
        return math.sqrt(math.log(2 / self.gamma) * self.deff / (2 * max(self.rows - self.nulls, 1)))

    def noncentrality(self, df: int) -> float:
        """Upper bound at `gamma` of the distance between the truth p and this reference q: the sum of (p - q)² / q.

        Over df + 1 bins; times a window's rows it is the non-centrality of that window's chi-square.
        """
        return float(special.chdtri(df, self.gamma)) * self.deff / max(self.rows, 1)

    def count(self, values: Values) -> Counts:
        """(n,) values to (bins.size,) int64 counts; PayloadError where text comes for numbers or the reverse."""
        if (values.dtype == object) != self.bins.of_text:
            raise PayloadError(self.name, f"its values are {values.dtype}, unlike the reference's", reason="type")
        return np.bincount(self.bins.index(values), minlength=self.bins.size).astype(np.int64, copy=False)

    def to_mapping(self) -> dict[str, Any]:
        """Canonical JSON form: what the profile's digest is taken over."""
        return {
            "name": self.name,
            "family": self.family,
            "bins": self.bins.to_mapping(),
            "counts": self.counts.tolist(),
            "deff": self.deff,
            "null_deff": self.null_deff,
            "gamma": self.gamma,
            "low": self.low,
            "high": self.high,
            **({} if self.seasonal is None else {"seasonal": self.seasonal.tolist()}),
        }

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "ColumnReference":
        """The inverse of `to_mapping`; StateError where the parts do not fit each other."""
        own = {**mapping, "bins": bins_from_mapping(mapping["bins"]), "counts": np.asarray(mapping["counts"], np.int64)}
        if mapping.get("seasonal") is not None:
            own["seasonal"] = np.asarray(mapping["seasonal"], np.int64)
        column = cls(**own)
        by_season = column.seasonal if column.seasonal is not None else column.counts[None, :]
        sound = (
            column.counts.shape == (column.bins.size,)
            and by_season.shape[1:] == column.counts.shape
            and bool((by_season >= 0).all())
            and bool((by_season.sum(0) == column.counts).all())
            and all(math.isfinite(effect) and effect >= 1.0 for effect in (column.deff, column.null_deff))
            and 0.0 < column.gamma < 1.0
        )
        if not sound:
            raise StateError(f"column {column.name!r:.80} contradicts itself")
        return column


@dataclass(frozen=True, slots=True)
class Fitted:
    """A reference whose design effects are still to be settled, and what stands out in its values and its nulls."""

    reference: ColumnReference
    values: Excess
    nulls: Excess


def fit_column(name: str, family: str, feature_type: str, values: Values, *, gamma: float, orders: Orders) -> Fitted:
    """The reference of one column from its (rows,) values in time order; `orders` from `design_effect.shuffles`."""
    bins = fit_bins(values, feature_type)
    numbers = bins.index(values)
    finite = values[np.isfinite(values)] if values.dtype != object else np.empty(0)
    reference = ColumnReference(
        name=name,
        family=family,
        bins=bins,
        counts=np.bincount(numbers, minlength=bins.size).astype(np.int64, copy=False),
        deff=1.0,
        null_deff=1.0,
        gamma=gamma,
        low=float(finite.min()) if len(finite) else None,
        high=float(finite.max()) if len(finite) else None,
        seasonal=None if orders.seasons is None else _by_season(numbers, bins.size, orders),
    )
    values_excess = excess(numbers, bins.size, bins.kind, orders)
    return Fitted(reference, values_excess, null_excess(numbers, bins, orders))


def _by_season(numbers: NDArray[np.intp], size: int, orders: Orders) -> Counts:
    assert orders.seasons is not None  # noqa: S101 -- for the type checker: asked by the caller
    held = np.bincount(orders.seasons * size + numbers, minlength=orders.count * size)
    return held.reshape(orders.count, size).astype(np.int64, copy=False)


def settle(fitted: Sequence[Fitted]) -> tuple[ColumnReference, ...]:
    """The references with their design effects, which all columns together say better than each alone."""
    grown = growth([one.values for one in fitted])
    return tuple(
        replace(one.reference, deff=design_effect(one.values, grown), null_deff=design_effect(one.nulls, grown))
        for one in fitted
    )
