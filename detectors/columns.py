"""What the reference of one column knows: its bins, what was counted in them, and how far that can be trusted.

Apart from `bins`, which say only where a value belongs. Built by `profile`, read by every algorithm.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from detectors.bins import Bins, Counts, Values, bins_from_mapping, fit_bins
from detectors.design_effect import Orders, design_effect, null_design_effect
from servelens.contract.errors import PayloadError, StateError

NULL: Final = -1  # the null bin of every column
UNSEEN: Final = -2  # the unseen bin of a categorical one


@dataclass(frozen=True, slots=True, eq=False)
class ColumnReference:
    """One column of a profile.

    `family`: `feature` or `prediction`. `counts`: (bins.size,) int64 of the reference. `deff`, `null_deff`: design
    effects (≥ 1) of the values and of their absence. `gamma`: the probability granted to the event that the truth
    lies further from this reference than `radius` or `noncentrality` say. `low`, `high`: range of the finite values.
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
        }

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "ColumnReference":
        """The inverse of `to_mapping`; StateError where the parts do not fit each other."""
        own = {**mapping, "bins": bins_from_mapping(mapping["bins"]), "counts": np.asarray(mapping["counts"], np.int64)}
        column = cls(**own)
        sound = (
            column.counts.shape == (column.bins.size,)
            and bool((column.counts >= 0).all())
            and all(math.isfinite(effect) and effect >= 1.0 for effect in (column.deff, column.null_deff))
            and 0.0 < column.gamma < 1.0
        )
        if not sound:
            raise StateError(f"column {column.name!r:.80} contradicts itself")
        return column


def fit_column(
    name: str, family: str, feature_type: str, values: Values, *, gamma: float, orders: Orders
) -> ColumnReference:
    """The reference of one column from its (rows,) values in time order; `orders` from `design_effect.shuffles`."""
    bins = fit_bins(values, feature_type)
    numbers = bins.index(values)
    finite = values[np.isfinite(values)] if values.dtype != object else np.empty(0)
    return ColumnReference(
        name=name,
        family=family,
        bins=bins,
        counts=np.bincount(numbers, minlength=bins.size).astype(np.int64, copy=False),
        deff=design_effect(numbers, bins.size, bins.kind, orders),
        null_deff=null_design_effect(numbers, bins, orders),
        gamma=gamma,
        low=float(finite.min()) if len(finite) else None,
        high=float(finite.max()) if len(finite) else None,
    )
