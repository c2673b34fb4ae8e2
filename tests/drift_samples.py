"""A model with columns of every kind, rows to profile it with, and windows with or without drift, all seeded."""

from collections.abc import Mapping

import numpy as np

from detectors.pane import Pane
from detectors.profile import Profile, build_profile
from servelens.contract.identity import ModelIdentity
from servelens.contract.schema import Feature, ModelSchema, Outputs
from servelens.contract.table import Column, Table

IDENTITY = ModelIdentity("shop", "churn", "predictor", "churn", "00001")
NUMERIC = tuple(f"n{at}" for at in range(14))
LEVELS = {"c0": 2, "c1": 3, "c2": 5, "c3": 10, "c4": 30}
FEATURES = (
    *(Feature(name, "numeric") for name in NUMERIC),
    *(Feature(name, "categorical") for name in LEVELS),
    Feature("children", "integer"),
)
MODEL = ModelSchema(IDENTITY, FEATURES, Outputs("probabilities", "", ("stays", "leaves")))


def draw(rng: np.random.Generator, rows: int, shifts: Mapping[str, float] | None = None) -> Table:
    """Independent rows of twenty features and the score; `shifts` in standard deviations, for numeric columns."""
    shifts = shifts or {}
    columns: dict[str, Column] = {}
    for at, name in enumerate(NUMERIC):
        plain = rng.normal(size=rows) + shifts.get(name, 0.0)
        columns[name] = [plain, np.exp(plain), np.maximum(plain, 0.0), np.round(plain, 1)][at % 4]
    for name, levels in LEVELS.items():
        labels = np.array([f"level {level}" for level in range(levels)], object)
        columns[name] = labels[rng.integers(0, levels, rows)]
    columns["children"] = rng.poisson(1.0, rows).clip(0, 6).astype(float)
    columns["score"] = 1 / (1 + np.exp(-rng.normal(size=rows) - shifts.get("score", 0.0)))
    return Table.of(columns)


def profile_of(seed: int = 0, rows: int = 10_000, model: ModelSchema = MODEL) -> Profile:
    return build_profile(draw(np.random.default_rng(seed), rows), model, {"source": "synthetic"})


def window(profile: Profile, rng: np.random.Generator, rows: int = 1000, slot: int = 0, **shifts: float) -> Pane:
    return Pane.of(profile, draw(rng, rows, shifts), slot=slot, exchanges=rows)


def one_column(values: Column, feature_type: str = "numeric", gamma_columns: int = 1) -> Profile:
    """A profile of a single feature `x` (and as many constant ones besides as gamma is to be split over)."""
    names = ["x", *(f"other{at}" for at in range(gamma_columns - 1))]
    features = tuple(Feature(name, feature_type if name == "x" else "numeric") for name in names)  # type: ignore[arg-type]
    model = ModelSchema(IDENTITY, features, Outputs("values"))
    columns = {name: values if name == "x" else np.zeros(len(values)) for name in names}
    return build_profile(Table.of(columns), model, {})
