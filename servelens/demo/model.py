"""The demo's model: gradient-boosted trees that say how likely a flight is to arrive late.

Fitted anew at each start, from the same rows with the same seed, in a second or two: no model file, so nothing to
unpickle, and a predictor that was killed comes back as the same model.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier

from servelens.demo.flights import CATEGORICAL, FEATURES, Flights

Array = npt.NDArray[Any]


class LateArrival:
    """`predict` takes named columns as `Flights.columns` has them."""

    def __init__(self, train: Flights, seed: int = 0) -> None:
        self._codes = {
            name: {text: code for code, text in enumerate(sorted(set(train.columns[name])))} for name in CATEGORICAL
        }
        categorical = [name in CATEGORICAL for name in FEATURES]
        self._trees = HistGradientBoostingClassifier(
            max_iter=40, random_state=seed, categorical_features=categorical, early_stopping=False
        )
        self._trees.fit(self._matrix(train.columns), train.late)

    def _matrix(self, columns: Mapping[str, Array]) -> Array:
        """(n_rows, n_features) float64; a category never seen is NaN, which the trees treat as missing."""
        return np.column_stack([self._numbers(name, columns[name]) for name in FEATURES])

    def _numbers(self, name: str, values: Array) -> Array:
        codes = self._codes.get(name)
        if codes is None:
            return np.asarray(values, dtype=np.float64)
        return np.array([codes.get(value, np.nan) for value in values], dtype=np.float64)

    def predict(self, columns: Mapping[str, Array]) -> Array:
        """(n_rows, 2) float64: the probabilities of on time and late."""
        answer: Array = self._trees.predict_proba(self._matrix(columns))
        return answer
