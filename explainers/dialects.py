"""How a predictor is asked and what it answers, in each protocol: rows in, a request out; an answer in, outputs out.

No I/O. `Outputs` of a row are what is explained: the prediction columns of `model.yaml`, a label as one 0/1 value per
class. Called by `predictor`, which sends and receives.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from explainers.coding import Array, Coding, Rows
from servelens.contract import oip, v1
from servelens.contract.elements import DTYPE
from servelens.contract.errors import PayloadError
from servelens.contract.jsontext import Json
from servelens.contract.limits import Limits
from servelens.contract.rows import prediction_table
from servelens.contract.schema import ModelSchema
from servelens.contract.table import Table
from servelens.contract.wire import CONTENT_TYPE_BINARY, CONTENT_TYPE_JSON, INFERENCE_HEADER_CONTENT_LENGTH

Dialect = Literal["v1", "v2", "v2-binary"]
_EXACT: Final = 1 << 53  # below, every integer is a double
ANSWER: Final = Limits(json_bytes=256 << 20, containers=1 << 24)


@dataclass(frozen=True, slots=True)
class Shape:
    """How a V2 model takes its features: a tensor each (`tensor` empty), or one matrix of that name and datatype.

    `datatypes`: those of named tensors, where the model says; else FP64 for numbers, BYTES for text.
    """

    tensor: str = ""
    datatype: str = "FP64"
    datatypes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Question:
    """A request to the predictor."""

    path: str
    body: bytes
    headers: Mapping[str, str]


def output_names(schema: ModelSchema) -> tuple[str, ...]:
    """What is explained, by name: prediction columns; of a model that answers labels, `prediction:<class>` for each."""
    if schema.outputs.kind == "labels":
        return tuple(f"prediction:{name}" for name in schema.outputs.classes)
    return tuple(column.name for column in schema.predictions)


def ask(dialect: Dialect, coding: Coding, rows: Rows, model: str, shape: Shape) -> Question:
    """The request that asks about these rows. Raises PayloadError where the protocol has no form for a value."""
    return _ASK[dialect](coding, rows, model, shape)


def answer(dialect: Dialect, schema: ModelSchema, body: bytes, header_length: int | None) -> Array:
    """(rows, outputs) float64. Raises PayloadError for an answer that is not one, or not of this model."""
    response = v1.decode_response(body, ANSWER) if dialect == "v1" else oip.decode_response(body, header_length, ANSWER)
    return _matrix(schema, prediction_table(schema, response))


def shape_of(schema: ModelSchema, inputs: Sequence[oip.Tensor | Mapping[str, Json]]) -> Shape | None:
    """The shape a model's V2 metadata asks for (its `inputs`: name, datatype, shape); None if it does not say."""
    declared = {str(item.get("name")): item for item in inputs if isinstance(item, Mapping)}
    if set(schema.names) <= set(declared):
        return Shape(datatypes={name: str(declared[name].get("datatype")) for name in schema.names})
    for name, item in declared.items():
        sizes = item.get("shape")
        if len(declared) == 1 and isinstance(sizes, list) and len(sizes) == 2 and not schema.categorical:
            return Shape(name, str(item.get("datatype")))
    return None


def default_shape(schema: ModelSchema) -> Shape:
    """What KServe's own runtimes take from a model that declares nothing: a matrix of numbers, else named columns."""
    return Shape() if schema.categorical else Shape("input-0")


def _ask_v1(coding: Coding, rows: Rows, model: str, _: Shape) -> Question:
    features = coding.schema.features
    if all(feature.type == "numeric" for feature in features):
        instances: list[Json] = rows.matrix.tolist()
    else:
        columns = [_json(features[i].type, column) for i, column in enumerate(coding.columns(rows))]
        instances = [list(row) for row in zip(*columns, strict=True)]
    body = v1.encode_request(v1.PredictRequest(instances))
    return Question(f"/v1/models/{model}:predict", body, {"content-type": CONTENT_TYPE_JSON})


def _json(kind: str, column: Array) -> list[Json]:
    """A column's values: whole numbers as such where the feature is one, and true and false."""
    values: list[Json] = column.tolist()
    if kind == "integer":
        return [
            int(one) if isinstance(one, float) and one.is_integer() and abs(one) < _EXACT else one for one in values
        ]
    if kind == "boolean":
        return [bool(one) if one in (0, 1) else one for one in values]
    return values


def _ask_v2(coding: Coding, rows: Rows, model: str, shape: Shape, binary: bool) -> Question:
    tensors = _tensors(coding, rows, shape)
    output = coding.schema.outputs.tensor
    asked = (oip.RequestedOutput(output, {"binary_data": binary}),) if output else ()
    parameters: dict[str, Json] = {"binary_data_output": True} if binary and not output else {}
    request = oip.InferRequest(inputs=tensors, outputs=asked, parameters=parameters)
    encoded = oip.encode_request(request, binary=oip.ALL if binary else ())
    if encoded.header_length is None:
        return Question(f"/v2/models/{model}/infer", encoded.body, {"content-type": CONTENT_TYPE_JSON})
    headers = {"content-type": CONTENT_TYPE_BINARY, INFERENCE_HEADER_CONTENT_LENGTH: str(encoded.header_length)}
    return Question(f"/v2/models/{model}/infer", encoded.body, headers)


def _tensors(coding: Coding, rows: Rows, shape: Shape) -> tuple[oip.Tensor, ...]:
    names = coding.schema.names
    if shape.tensor:
        return (_typed(shape.tensor, rows.matrix, shape.datatype),)
    columns = coding.columns(rows)
    return tuple(
        _typed(name, column, shape.datatypes.get(name, "")) for name, column in zip(names, columns, strict=True)
    )


def _typed(name: str, data: Array, datatype: str) -> oip.Tensor:
    """A tensor in the datatype the model wants, if the values fit it; else in their own."""
    if data.dtype == np.object_:
        return oip.Tensor.of(name, np.array(["" if value is None else value for value in data], np.object_))
    if datatype in DTYPE and datatype != "BYTES":
        wanted = DTYPE[datatype]
        if wanted.kind == "f" or _fits(data, wanted):
            return oip.Tensor.of(name, data.astype(wanted), datatype)
    return oip.Tensor.of(name, np.ascontiguousarray(data))


def _fits(data: Array, wanted: np.dtype[Any]) -> bool:
    """Whether every number is one of the integers, or truths, of that dtype: a cast would wrap what is not."""
    if not (np.isfinite(data).all() and (data == np.rint(data)).all()):
        return False
    low, high = (0, 1) if wanted.kind == "b" else (np.iinfo(wanted).min, min(np.iinfo(wanted).max, _EXACT))
    return bool(((data >= low) & (data <= high)).all())


_ASK: Final[Mapping[Dialect, Callable[[Coding, Rows, str, Shape], Question]]] = {
    "v1": _ask_v1,
    "v2": lambda coding, rows, model, shape: _ask_v2(coding, rows, model, shape, binary=False),
    "v2-binary": lambda coding, rows, model, shape: _ask_v2(coding, rows, model, shape, binary=True),
}


def _matrix(schema: ModelSchema, table: Table) -> Array:
    if schema.outputs.kind != "labels":
        return np.column_stack([table.columns[column.name] for column in schema.predictions])
    labels = table.columns["prediction"]
    unknown = set(labels) - set(schema.outputs.classes)
    if unknown:
        raise PayloadError(
            "predictions", "a label that outputs.classes of model.yaml does not list", reason="unknown_label"
        )
    return np.column_stack([labels == name for name in schema.outputs.classes]).astype(np.float64)
