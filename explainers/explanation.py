"""What a method finds: frozen values with their own error, cost, seed and background. No JSON here, see `answers`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from explainers.coding import Array
from servelens.contract.jsontext import Json


@dataclass(frozen=True, slots=True)
class Cost:
    """`rows` looked at; `sent` to the predictor, less what is cached or equal, plus the explained row in each call."""

    rows: int = 0
    sent: int = 0
    calls: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Attributions:
    """Shapley values: base (outputs,) the background's mean output; values and errors (outputs, features).

    `exact`: over all coalitions, so the errors are 0. `background_rows` were walked, `pairs` times each.
    """

    base: Array
    values: Array
    errors: Array
    background_rows: int
    pairs: int
    exact: bool = False

    def relative_error(self) -> float:
        """The largest error over the sum of absolute attributions, the worst output's; 0 if nothing is attributed."""
        sums = np.abs(self.values).sum(axis=1)
        shares = np.divide(self.errors.max(axis=1), sums, out=np.zeros_like(sums), where=sums > 0)
        return float(shares.max(initial=0.0))


@dataclass(frozen=True, slots=True)
class Rule:
    """An anchor: while the `predicates` (on the features of the same positions) hold, the prediction stays `outcome`.

    `precision`: of `samples` fresh rows where the rule holds, the share with the same outcome, `error` its standard
    error; `coverage`: the share of background-like rows it holds for; `met`: whether the wanted precision was reached.
    """

    outcome: str
    predicates: Sequence[str]
    features: Sequence[int]
    precision: float
    error: float
    samples: int
    coverage: float
    met: bool


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """One explained row. `values`: the row as JSON, in the order of `features`; `prediction` (outputs,)."""

    method: str
    features: Sequence[str]
    values: Sequence[Json]
    outputs: Sequence[str]
    prediction: Array
    found: Attributions | Rule
    cost: Cost
    seed: int
    background: str
    complete: bool
