"""Rows: the features a request gave a model and the predictions it answered, as tables, whatever protocol it was.

Decoded bodies and a `ModelSchema` in, `Table`s out; `decode_exchange_bodies` starts from bytes. No I/O.
Called by the detector's workers, `servelens profile` and the explainer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from servelens.contract import oip, v1, wire
from servelens.contract.columns import block_of_arrays, block_of_matrix, block_of_rows, column_of, column_of_array
from servelens.contract.errors import PayloadError, TooLarge
from servelens.contract.jsontext import Json
from servelens.contract.limits import LIMITS, Limits
from servelens.contract.paths import Protocol, route_of
from servelens.contract.schema import ModelSchema
from servelens.contract.table import Table

Request: TypeAlias = v1.PredictRequest | oip.InferRequest
Response: TypeAlias = v1.PredictResponse | oip.InferResponse


@dataclass(frozen=True, slots=True, eq=False)
class DecodedExchange:
    """Both halves of one exchange as tables with equally many rows; None for a half that was not given.

    `modelname` is that of the path, else that of a V2 body, else empty.
    """

    protocol: Protocol
    modelname: str
    inputs: Table | None
    predictions: Table | None


def decode_exchange_bodies(
    schema: ModelSchema,
    request: bytes | memoryview | None = None,
    response: bytes | memoryview | None = None,
    *,
    path: str = "",
    protocol: Protocol | None = None,
    request_header_length: int | None = None,
    response_header_length: int | None = None,
    limits: Limits = LIMITS,
) -> DecodedExchange:
    """The rows in the bodies of one exchange, already decompressed; None for a half that was not captured.

    The protocol is what the caller says, else what `path` says, else what the bodies look like. The header lengths are
    the values of the Inference-Header-Content-Length headers, None where unknown or absent.
    Raises PayloadError (`row_mismatch` where the halves have different numbers of rows) or TooLarge.
    """
    route = route_of(path)
    asked = None if request is None else _open(request, request_header_length, limits)
    answered = None if response is None else _open(response, response_header_length, limits)
    spoken = protocol or route.protocol or _sniff(asked, answered)
    inputs = None if asked is None else request_table(schema, _REQUESTS[spoken](asked, limits), limits)
    predictions = None if answered is None else prediction_table(schema, _RESPONSES[spoken](answered, limits))
    if inputs is not None and predictions is not None and inputs.rows != predictions.rows:
        problem = f"{predictions.rows} rows answer {inputs.rows} rows"
        raise PayloadError("predictions", problem, reason="row_mismatch")
    return DecodedExchange(spoken, route.modelname or _model_name(answered, asked), inputs, predictions)


def request_table(schema: ModelSchema, request: Request, limits: Limits = LIMITS) -> Table:
    """The features a request carries, one column each in the schema's order.

    V2: a tensor per feature by name, of shape [rows] or [rows, 1], others ignored; or a single tensor of shape
    [rows, features]. V1: lists in the schema's order, scalars for a model of one feature, or objects, in which a
    missing feature is null and unknown ones are ignored; lists within an object or an instance are several rows.
    Raises PayloadError, or TooLarge where objects stand for more than `limits.elements` values.
    """
    if isinstance(request, v1.PredictRequest):
        rows = _v1_rows(schema, request, limits)
        return Table(block_of_rows(schema, rows), len(rows))
    matrix, width = request.inputs[0] if len(request.inputs) == 1 else None, len(schema.names)
    if matrix is not None:
        if len(matrix.shape) == 2 and matrix.shape[1] == width:
            return Table(block_of_matrix(schema, matrix.data), matrix.shape[0])
        if matrix.name not in schema.names:
            raise _wrong_shape(matrix, f"[rows, {width}], or a tensor per feature by name")
    return _by_name(schema, {tensor.name: tensor for tensor in request.inputs})


def prediction_table(schema: ModelSchema, response: Response) -> Table:
    """The predictions a response carries, under the schema's prediction columns.

    One value per row for values and labels; for probabilities one per class, or that of the second of two classes.
    V1 rows may be objects: of the output's name, of the classes, or of one single member. Raises PayloadError.
    """
    if isinstance(response, v1.PredictResponse):
        return _v1_predictions(schema, response)
    tensor = _output(schema, response)
    if not 1 <= len(tensor.shape) <= 2:
        raise _wrong_shape(tensor, "[rows] or [rows, outputs]")
    matrix = tensor.data if len(tensor.shape) == 2 else tensor.data.reshape(-1, 1)
    first = _first_position(schema, matrix.shape[1], tensor.name)
    columns = {
        feature.name: column_of_array(feature, matrix[:, first + index])
        for index, feature in enumerate(schema.predictions)
    }
    return Table(columns, tensor.shape[0])


def _by_name(schema: ModelSchema, tensors: Mapping[str, oip.Tensor]) -> Table:
    rows = -1
    arrays = []
    for name in schema.names:
        tensor = tensors.get(name)
        if tensor is None:
            problem = f"has no tensor {name!r}, nor is there just one tensor of all features"
            raise PayloadError("inputs", problem, reason="missing_column")
        shape = tensor.shape
        rows = shape[0] if rows < 0 and shape else rows
        if shape not in ((rows,), (rows, 1)):
            raise _wrong_shape(tensor, f"[rows] or [rows, 1], as many rows as {schema.names[0]!r}")
        arrays.append(tensor.data)
    return Table(block_of_arrays(schema, arrays, rows), rows)


def _v1_rows(schema: ModelSchema, request: v1.PredictRequest, limits: Limits) -> list[list[Json]]:
    rows: list[list[Json]] = []
    for index, instance in enumerate(request.instances):
        rows += _rows(schema, instance, index, limits)
        _check_size(schema, len(rows), limits)
    return rows


def _check_size(schema: ModelSchema, rows: int, limits: Limits) -> None:
    """An object need not name its nulls, nor repeat its scalars: few bytes can stand for many values."""
    if rows * len(schema.names) > limits.elements:
        raise TooLarge("instances", f"more than the limit of {limits.elements} values")


def _rows(schema: ModelSchema, instance: Json, index: int, limits: Limits) -> list[list[Json]]:
    """The rows one V1 instance stands for, their values in the schema's order."""
    if type(instance) is dict:
        return _object_rows(schema, instance, index, limits)
    width = len(schema.names)
    if type(instance) is not list:
        instance = [instance]
    if len(instance) == width and list not in map(type, instance) and dict not in map(type, instance):
        return [instance]
    if instance and all(type(item) is dict for item in instance):  # a list of objects is one data frame for KServe
        return [row for item in instance if type(item) is dict for row in _object_rows(schema, item, index, limits)]
    flat = _leaves(instance)
    if len(flat) == width:
        return [flat]
    rows = [item for item in instance if type(item) is list and len(item) == width]
    if not rows or len(rows) != len(instance):
        problem = f"has {len(flat)} values, the model has {width} features"
        raise PayloadError(f"instances[{index}]", problem, reason="wrong_shape")
    return rows


def _object_rows(schema: ModelSchema, instance: dict[str, Json], index: int, limits: Limits) -> list[list[Json]]:
    """{feature: value} is one row; lists among the values are as many rows, scalars repeated (as pandas does)."""
    if instance.keys().isdisjoint(schema.names):
        problem = f"has none of the model's features, {schema.names[0]!r} for one"
        raise PayloadError(f"instances[{index}]", problem, reason="missing_column")
    values = [instance.get(name) for name in schema.names]
    if list not in map(type, values):
        return [values]
    lengths = {len(value) for value in values if type(value) is list}
    if len(lengths) != 1:
        raise PayloadError(f"instances[{index}]", "its features are lists of different lengths", reason="wrong_shape")
    rows = lengths.pop()
    _check_size(schema, rows, limits)
    columns = [value if type(value) is list else [value] * rows for value in values]
    return [list(row) for row in zip(*columns, strict=True)]


def _leaves(values: list[Json]) -> list[Json]:
    """All elements in row-major order, however they are nested; each is touched once."""
    leaves: list[Json] = []
    open_lists = [iter(values)]
    while open_lists:
        for value in open_lists[-1]:
            if type(value) is list:
                open_lists.append(iter(value))
                break
            leaves.append(value)
        else:
            open_lists.pop()
    return leaves


def _output(schema: ModelSchema, response: oip.InferResponse) -> oip.Tensor:
    name = schema.outputs.tensor
    found = [tensor for tensor in response.outputs if tensor.name == name or not name]
    if len(found) != 1:
        wanted = f"named {name!r}" if name else "and model.yaml does not say which"
        raise PayloadError("outputs", f"has {len(found)} tensors {wanted}", reason="missing_column")
    return found[0]


def _first_position(schema: ModelSchema, width: int, field: str) -> int:
    """Where in an answer `width` values wide the prediction columns begin: behind the first of two classes, or 0."""
    wanted = len(schema.predictions)
    if width == wanted:
        return 0
    if wanted == 1 and width == len(schema.outputs.classes) == 2 and schema.outputs.kind == "probabilities":
        return 1
    raise PayloadError(field, f"{width} values a row, model.yaml expects {wanted}", reason="wrong_shape")


def _v1_predictions(schema: ModelSchema, response: v1.PredictResponse) -> Table:
    rows = [_prediction(schema, element, index) for index, element in enumerate(response.predictions)]
    widths = {len(row) for row in rows} or {len(schema.predictions)}
    if len(widths) != 1:
        raise PayloadError("predictions", "rows of different widths", reason="wrong_shape")
    first = _first_position(schema, widths.pop(), "predictions")
    columns = {
        feature.name: column_of(feature, [row[first + index] for row in rows])
        for index, feature in enumerate(schema.predictions)
    }
    return Table(columns, len(rows))


def _prediction(schema: ModelSchema, element: Json, index: int) -> list[Json]:
    """The values of one V1 prediction."""
    outputs = schema.outputs
    if type(element) is dict:
        if outputs.tensor in element:
            element = element[outputs.tensor]
        elif outputs.kind == "probabilities" and all(name in element for name in outputs.classes):
            element = [element[name] for name in outputs.classes]
        elif len(element) == 1:
            element = next(iter(element.values()))
        else:
            problem = f"is an object without {outputs.tensor!r}, the output in model.yaml"
            raise PayloadError(f"predictions[{index}]", problem, reason="missing_column")
    return _leaves(element) if type(element) is list else [element]


def _wrong_shape(tensor: oip.Tensor, expected: str) -> PayloadError:
    return PayloadError(tensor.name, f"has shape {list(tensor.shape)}, expected {expected}", reason="wrong_shape")


class _Opened(NamedTuple):
    """A body whose JSON is parsed; `length` bytes of it are JSON, `exact` if a header said so."""

    body: bytes | memoryview
    document: dict[str, Json]
    length: int
    exact: bool


def _open(body: bytes | memoryview, header_length: int | None, limits: Limits) -> _Opened:
    document, length = wire.read_header(body, header_length, limits)
    return _Opened(body, document, length, header_length is not None)


def _cut(opened: _Opened, side: wire.Side, limits: Limits) -> wire.Layout:
    return wire.lay_out(opened.document, opened.length, opened.body, side, limits, exact=opened.exact)


def _whole(opened: _Opened) -> dict[str, Json]:
    if bytes(opened.body[opened.length :]).strip():
        problem = f"{len(opened.body) - opened.length} bytes behind the JSON, which V1 does not have"
        raise PayloadError("body", problem, reason="wrong_length")
    return opened.document


_REQUESTS: Final[Mapping[Protocol, Callable[[_Opened, Limits], Request]]] = {
    "v1": lambda opened, _: v1.request_of(_whole(opened)),
    "v2": lambda opened, limits: oip.request_of(_cut(opened, "inputs", limits), opened.body, limits),
}
_RESPONSES: Final[Mapping[Protocol, Callable[[_Opened, Limits], Response]]] = {
    "v1": lambda opened, _: v1.response_of(_whole(opened)),
    "v2": lambda opened, limits: oip.response_of(_cut(opened, "outputs", limits), opened.body, limits),
}


def _sniff(asked: _Opened | None, answered: _Opened | None) -> Protocol:
    """The protocol two bodies of unknown path are in: only V2 inputs are objects with a datatype."""
    request = {} if asked is None else asked.document
    response = {} if answered is None else answered.document
    inputs = request.get("inputs")
    first = inputs[0] if type(inputs) is list and inputs else None
    if type(first) is dict and "datatype" in first:
        return "v2"
    if "inputs" in request or "instances" in request or "predictions" in response:
        return "v1"
    if "outputs" in response:
        return "v2"
    raise PayloadError("body", "is of neither the V1 nor the V2 protocol", reason="unknown_protocol")


def _model_name(*bodies: _Opened | None) -> str:
    """A V2 body's own `model_name`, the answer's before the request's."""
    names = [body.document.get("model_name") for body in bodies if body is not None]
    return next((name for name in names if type(name) is str and name), "")
