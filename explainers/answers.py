"""Explanations in the forms that go over the wire: one JSON object (V1, and MLServer's BYTES tensor), and V2 tensors.

No I/O. `SCHEMA_VERSION` is that of the JSON object; the tensors' names are the table of the README. Called by
`routes`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson

from explainers.coding import Array
from explainers.explanation import Attributions, Explanation, Rule
from servelens.contract import oip
from servelens.contract.errors import NotFound

SCHEMA_VERSION: Final = 1
JSON_TENSOR: Final = "explanation"


def document(explanation: Explanation) -> dict[str, Any]:
    """The JSON object of one explained row."""
    cost = explanation.cost
    return {
        "schemaversion": SCHEMA_VERSION,
        "method": explanation.method,
        "complete": explanation.complete,
        "prediction": dict(zip(explanation.outputs, explanation.prediction.tolist(), strict=True)),
        **_FOUND[type(explanation.found)](explanation, explanation.found),
        "row": dict(zip(explanation.features, explanation.values, strict=True)),
        "cost": {"rows": cost.rows, "sent": cost.sent, "calls": cost.calls, "seconds": round(cost.seconds, 4)},
        "seed": explanation.seed,
        "background": {"sha256": explanation.background},
    }


def _attributions(explanation: Explanation, found: Attributions) -> dict[str, Any]:
    return {
        "base": dict(zip(explanation.outputs, found.base.tolist(), strict=True)),
        "attributions": {
            output: [
                {"feature": name, "attribution": value, "standard_error": error}
                for name, value, error in zip(
                    explanation.features, found.values[at].tolist(), found.errors[at].tolist(), strict=True
                )
            ]
            for at, output in enumerate(explanation.outputs)
        },
        "error": {
            "standard_error_max": float(found.errors.max(initial=0.0)),
            "relative": found.relative_error(),
            "additivity_gap": _gap(explanation.prediction, found),
            "exact": found.exact,
            "background_rows": found.background_rows,
            "pairs": found.pairs,
        },
    }


def _gap(prediction: Array, found: Attributions) -> float:
    """How far base + attributions are from the prediction; beyond rounding only where walks are missing."""
    return float(np.abs(found.base + found.values.sum(axis=1) - prediction).max())


def _rule(_: Explanation, found: Rule) -> dict[str, Any]:
    return {
        "outcome": found.outcome,
        "rule": list(found.predicates),
        "features": list(found.features),
        "coverage": found.coverage,
        "error": {
            "precision": found.precision,
            "standard_error": found.error,
            "samples": found.samples,
            "precision_met": found.met,
        },
    }


_FOUND: Final[Mapping[type, Callable[[Explanation, Any], dict[str, Any]]]] = {Attributions: _attributions, Rule: _rule}


def _stacked(explanations: Sequence[Explanation], of: Callable[[Any], Any]) -> Array:
    return np.array([of(explanation.found) for explanation in explanations])


def _texts(values: Sequence[str]) -> Array:
    return np.array(list(values), np.object_)


Make = Callable[[Sequence[Explanation]], Array]

_EVERY: Final[Mapping[str, Make]] = {
    "predictions": lambda found: np.array([one.prediction for one in found]),
    "output_names": lambda found: _texts(found[0].outputs),
    "feature_names": lambda found: _texts(found[0].features),
    "complete": lambda found: np.array([one.complete for one in found]),
}
_OWN: Final[Mapping[type, Mapping[str, Make]]] = {
    Attributions: {
        "attributions": lambda found: _stacked(found, lambda one: one.values),
        "standard_errors": lambda found: _stacked(found, lambda one: one.errors),
        "base_values": lambda found: _stacked(found, lambda one: one.base),
    },
    Rule: {
        "rules": lambda found: _texts([orjson.dumps(list(one.found.predicates)).decode() for one in found]),  # type: ignore[union-attr]
        "outcomes": lambda found: _texts([one.found.outcome for one in found]),  # type: ignore[union-attr]
        "precisions": lambda found: _stacked(found, lambda one: one.precision),
        "standard_errors": lambda found: _stacked(found, lambda one: one.error),
        "coverages": lambda found: _stacked(found, lambda one: one.coverage),
    },
}
# Name, datatype and shape of each, as the V2 model metadata says it: rows, outputs and features vary.
DECLARED: Final[tuple[tuple[str, str, list[int]], ...]] = (
    ("attributions", "FP64", [-1, -1, -1]),
    ("standard_errors", "FP64", [-1, -1, -1]),
    ("base_values", "FP64", [-1, -1]),
    ("predictions", "FP64", [-1, -1]),
    ("output_names", "BYTES", [-1]),
    ("feature_names", "BYTES", [-1]),
    ("complete", "BOOL", [-1]),
    ("rules", "BYTES", [-1]),
    ("outcomes", "BYTES", [-1]),
    ("precisions", "FP64", [-1]),
    ("coverages", "FP64", [-1]),
    (JSON_TENSOR, "BYTES", [-1, 1]),
)


def _json_tensor(found: Sequence[Explanation]) -> Array:
    """(rows, 1) BYTES, as MLServer's runtimes answer."""
    return _texts([orjson.dumps(document(one)).decode() for one in found]).reshape(-1, 1)


def check(wanted: Collection[str]) -> None:
    """Raise NotFound for a tensor that no method has, before any work is done for it."""
    known = [name for name, *_ in DECLARED]
    for name in wanted:
        if name not in known:
            raise NotFound(f"outputs: no tensor {name!r}; there are {', '.join(known)}")


def tensors(explanations: Sequence[Explanation], wanted: Collection[str] = ()) -> tuple[oip.Tensor, ...]:
    """The tensors of one request's explanations, all of one method: those wanted, else all but the JSON one.

    attributions and standard_errors (rows, outputs, features), base_values and predictions (rows, outputs) FP64;
    rules, outcomes BYTES (rows,); names BYTES; complete BOOL (rows,). Raises NotFound for a name there is not.
    """
    made = {**_OWN[type(explanations[0].found)], **_EVERY, JSON_TENSOR: _json_tensor}
    unknown = [name for name in wanted if name not in made]
    if unknown:
        raise NotFound(f"outputs: no tensor {unknown[0]!r}; there are {', '.join(made)}")
    names = [name for name in made if name in wanted] if wanted else [name for name in made if name != JSON_TENSOR]
    return tuple(_tensor(name, made[name](explanations)) for name in names)


def _tensor(name: str, data: Array) -> oip.Tensor:
    tensor = oip.Tensor.of(name, data)
    if name != JSON_TENSOR:
        return tensor
    return oip.Tensor(name, tensor.datatype, tensor.shape, tensor.data, {"content_type": "str"})


def parameters(explanations: Sequence[Explanation]) -> dict[str, Any]:
    """What holds for the whole V2 response: method, cost, seed, background."""
    first = explanations[0]
    return {
        "method": first.method,
        "seed": first.seed,
        "background_sha256": first.background,
        "rows": sum(one.cost.rows for one in explanations),
        "calls": sum(one.cost.calls for one in explanations),
    }
