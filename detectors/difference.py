"""What has changed between two profiles of a model, column by column, without any rows. Called by `profile diff`.

Distances are between the references as counted: of ranges at the edges of both, between which a curve is taken as a
straight line; of levels over the levels of both.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from detectors.bins import QuantileBins
from detectors.columns import ColumnReference
from detectors.profile import Profile


@dataclass(frozen=True, slots=True)
class Difference:
    """One column: `what` in words; `effect` is KS distance or total variation, None where nothing can be compared."""

    column: str
    what: str
    effect: float | None = None
    nulls: tuple[float, float] = (0.0, 0.0)
    deff: tuple[float, float] = (1.0, 1.0)


def differences(old: Profile, new: Profile) -> Iterator[Difference]:
    """Every column of either, in the order of the new profile, then what it no longer has."""
    for column in new.columns:
        at = old.position.get(column.name)
        yield _column(old.columns[at], column) if at is not None else Difference(column.name, "new")
    for column in old.columns:
        if column.name not in new.position:
            yield Difference(column.name, "gone")


def _column(old: ColumnReference, new: ColumnReference) -> Difference:
    rates, effects = (old.null_rate, new.null_rate), (old.deff, new.deff)
    if old.kind != new.kind:
        return Difference(new.name, f"{old.kind} → {new.kind}", None, rates, effects)
    if isinstance(old.bins, QuantileBins) and isinstance(new.bins, QuantileBins):
        return Difference(new.name, "KS distance", _distance(old, new), rates, effects)
    moved, gained, lost = _levels(old, new)
    words = [f"{len(names)} {what}" for names, what in ((gained, "levels more"), (lost, "levels fewer")) if names]
    return Difference(new.name, ", ".join(["total variation", *words]), moved, rates, effects)


def _distance(old: ColumnReference, new: ColumnReference) -> float:
    edges = [np.asarray(one.bins.edges) for one in (old, new) if isinstance(one.bins, QuantileBins)]
    both = np.unique(np.concatenate(edges))
    curves = [
        np.interp(both, at, one.cumulative[: len(at)]) for at, one in zip(edges, (old, new), strict=True) if len(at)
    ]
    return float(np.abs(curves[0] - curves[1]).max()) if len(curves) == 2 and len(both) else 0.0


def _levels(old: ColumnReference, new: ColumnReference) -> tuple[float, set[str], set[str]]:
    shares = [
        {one.bins.label(at): count / max(one.rows, 1) for at, count in enumerate(one.counts.tolist())}
        for one in (old, new)
    ]
    then, now = shares
    moved = 0.5 * sum(abs(then.get(name, 0.0) - now.get(name, 0.0)) for name in then.keys() | now.keys())
    return moved, now.keys() - then.keys(), then.keys() - now.keys()
