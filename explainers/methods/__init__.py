"""The methods, by name: one file each, imported when it is first asked for.

A method is an async function of a `Task`; what is heavy in one (alibi) never weighs on the others.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, TypeAlias

from explainers.budget import Budget
from explainers.coding import Array, Coding, Rows
from explainers.explanation import Attributions, Explanation, Rule
from explainers.session import Session


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What a method is given: one row, the background, the predictor through `session`, and its limits.

    `background` rows are what absent features are drawn from, `digest` names them; `outputs` are the names of what is
    explained. `options` are the method's own, from `explainer.yaml`.
    """

    row: Rows
    background: Rows
    digest: str
    coding: Coding
    outputs: tuple[str, ...]
    session: Session
    budget: Budget
    seed: int
    options: Mapping[str, Any]

    @property
    def x(self) -> Array:
        """The explained row, (features,)."""
        row: Array = self.row.matrix[0]
        return row

    def explained(
        self, method: str, prediction: Array, found: Attributions | Rule, seconds: float, *, complete: bool
    ) -> Explanation:
        """What was found, with all that holds for any method."""
        return Explanation(
            method=method,
            features=self.coding.schema.names,
            values=self.coding.values(self.row),
            outputs=self.outputs,
            prediction=prediction,
            found=found,
            cost=self.session.cost(seconds),
            seed=self.seed,
            background=self.digest,
            complete=complete,
        )


Method: TypeAlias = Callable[[Task], Awaitable[Explanation]]

METHODS: Final[Mapping[str, str]] = {
    "permutation_shap": "explainers.methods.permutation_shap:explain",
    "anchor_tabular": "explainers.methods.anchor_tabular:explain",
}


def method(name: str) -> Method:
    """The method of that name; KeyError if there is none."""
    module, _, function = METHODS[name].partition(":")
    found: Method = getattr(import_module(module), function)
    return found
