"""Twenty columns whose truth is known, drawn so fast that a model-year of windows takes minutes.

Each is a monotone form of a latent normal: fourteen numeric columns of four shapes, six categorical ones of two to
thirty levels. With autocorrelation rho, the rows of a block (of `BLOCK` unless told otherwise) share an effect that has
that share of the variance, in every column: sessions, tenants, hours.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from detectors.bins import QuantileBins
from detectors.pane import Pane
from detectors.profile import Profile, build_profile
from servelens.contract.identity import ModelIdentity
from servelens.contract.schema import Feature, ModelSchema, Outputs
from servelens.contract.table import Column, Table

BLOCK: Final = 100  # rows
NUMERIC: Final = tuple(f"n{at}" for at in range(14))
LEVELS: Final = {"c0": 2, "c1": 2, "c2": 3, "c3": 5, "c4": 10, "c5": 30}
NAMES: Final = (*NUMERIC, *LEVELS)
SHIFTED: Final = "n4"
MODEL: Final = ModelSchema(
    ModelIdentity("study", "twenty", "predictor", "twenty"),
    tuple(Feature(name, "numeric" if name in NUMERIC else "categorical") for name in NAMES),
    Outputs("values"),
)
_SHAPES: Final = (
    lambda z: z,  # normal
    np.exp,  # log-normal
    lambda z: np.round(z, 1),  # coarse
    lambda z: np.maximum(z, 0.0),  # half of it nought
)
_CUTS: Final = {name: stats.norm.ppf(np.arange(1, size) / size) for name, size in LEVELS.items()}
_WORDS: Final = {name: np.array([f"level {at:02}" for at in range(size)], object) for name, size in LEVELS.items()}

Latent = NDArray[np.float64]


def latent(rng: np.random.Generator, rows: int, rho: float, shift: float = 0.0, block: int = BLOCK) -> Latent:
    """(columns, rows) standard normals; `shift` moves `SHIFTED`, in standard deviations."""
    z = rng.standard_normal((len(NAMES), rows))
    if rho:
        shared = rng.standard_normal((len(NAMES), -(-rows // block)))
        z = np.sqrt(1 - rho) * z + np.sqrt(rho) * np.repeat(shared, block, axis=1)[:, :rows]
    z[NAMES.index(SHIFTED)] += shift
    return z


def table(z: Latent) -> Table:
    """The rows as a model would see them."""
    columns: dict[str, Column] = {name: _SHAPES[at % 4](z[at]) for at, name in enumerate(NUMERIC)}
    for at, name in enumerate(LEVELS, len(NUMERIC)):
        columns[name] = _WORDS[name][np.searchsorted(_CUTS[name], z[at])]
    return Table.of(columns)


@dataclass(frozen=True, slots=True)
class Counter:
    """Counts windows of latents into a profile's bins, as `Pane.of` would their tables (a test holds them equal)."""

    profile: Profile
    edges: tuple[NDArray[np.float64], ...]
    codes: tuple[NDArray[np.intp], ...]

    @classmethod
    def of(cls, profile: Profile) -> "Counter":
        numeric = [column.bins for column in profile.columns[: len(NUMERIC)]]
        edges = tuple(bins.edges for bins in numeric if isinstance(bins, QuantileBins))
        rest = profile.columns[len(NUMERIC) :]
        codes = tuple(column.bins.index(_WORDS[column.name]) for column in rest)
        return cls(profile, edges, codes)

    def pane(self, z: Latent, slot: int = 0) -> Pane:
        """The rows' counts."""
        counts = np.zeros(self.profile.width, np.int64)
        for at, (part, edges) in enumerate(zip(self.profile.slices, self.edges, strict=False)):
            counts[part] = np.bincount(
                np.searchsorted(edges, _SHAPES[at % 4](z[at]), "left"), minlength=part.stop - part.start
            )
        for at, codes in enumerate(self.codes, len(NUMERIC)):
            part = self.profile.slices[at]
            numbers = codes[np.searchsorted(_CUTS[NAMES[at]], z[at])]
            counts[part] = np.bincount(numbers, minlength=part.stop - part.start)
        rows = z.shape[1]
        return Pane(self.profile, self.profile.identity, (slot, slot + 1), counts, rows, rows)


def profile_of(rng: np.random.Generator, rows: int, rho: float, block: int = BLOCK) -> Profile:
    """A reference of that many rows."""
    return build_profile(table(latent(rng, rows, rho, block=block)), MODEL, {"source": "study"})
