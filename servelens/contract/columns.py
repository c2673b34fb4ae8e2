"""The columns of a table from whatever carried them: JSON values, the objects of a BYTES tensor, or typed arrays.

All end in the same columns (float64, or text), so the three ways to send one row give one table. Numeric columns are
made in one array: twenty arrays of one element would cost more than all the rest of decoding a one-row request.
Apart from `rows`, which knows where in a payload a column is. Called only from there.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from math import isnan
from typing import Any, Final

import numpy as np

from servelens.contract.elements import NUMBERS, Array, doubles
from servelens.contract.errors import PayloadError
from servelens.contract.jsontext import json_type
from servelens.contract.schema import Feature, ModelSchema
from servelens.contract.table import Block

_TRUTH: Final = {"true": 1.0, "false": 0.0}


def column_of(feature: Feature, values: Sequence[object]) -> Array:
    """A column of JSON scalars or bytes, shape (len(values),): float64, or objects, str or None, if categorical.

    Raises PayloadError (`wrong_type`) naming the feature.
    """
    if feature.is_categorical:
        texts = [value if type(value) is str else _category(feature, value) for value in values]
        return np.array(texts, np.object_)
    return _numbers([feature], [values], len(values)).reshape(-1)


def column_of_array(feature: Feature, array: Array) -> Array:
    """A column of a typed array of any shape, its elements in row-major order."""
    flat = array.reshape(-1)
    if feature.is_categorical or flat.dtype == np.object_:
        return column_of(feature, flat.tolist())
    return np.array(_widened(flat))


def block_of_rows(schema: ModelSchema, rows: Sequence[Sequence[Any]]) -> Block:
    """The feature columns of rows of JSON scalars, each as wide as the schema."""
    width, features = len(schema.names), schema.features
    flat = list(chain.from_iterable(rows))
    if not schema.categorical:
        numbers = doubles(flat)
        if numbers is not None:
            return _block(schema, numbers.reshape(-1, width).T.copy(), ())
    numeric = [flat[i::width] for i in schema.numeric]
    texts = [column_of(features[i], flat[i::width]) for i in schema.categorical]
    return _block(schema, _numbers([features[i] for i in schema.numeric], numeric, len(rows)), texts)


def block_of_matrix(schema: ModelSchema, matrix: Array) -> Block:
    """The feature columns of an array of shape (rows, features)."""
    if matrix.dtype == np.object_:
        return block_of_arrays(schema, list(matrix.T), matrix.shape[0])
    texts = [column_of_array(schema.features[i], matrix[:, i]) for i in schema.categorical]
    numeric = matrix[:, schema.numeric] if texts else matrix
    return _block(schema, np.array(_widened(numeric).T, order="C"), texts)


def block_of_arrays(schema: ModelSchema, arrays: Sequence[Array], rows: int) -> Block:
    """The feature columns of one array per feature, each of `rows` elements."""
    flat = [array.reshape(-1) for array in arrays]
    texts = [column_of_array(schema.features[i], flat[i]) for i in schema.categorical]
    numeric = [
        column_of(schema.features[i], flat[i].tolist()) if flat[i].dtype == np.object_ else _widened(flat[i])
        for i in schema.numeric
    ]
    if not numeric:
        return _block(schema, np.empty((0, rows)), texts)
    return _block(schema, np.concatenate(numeric).reshape(len(numeric), rows), texts)


def _widened(array: Array) -> Array:
    """As float64; a signalling NaN, which any client can send, is no reason to warn."""
    if array.dtype == np.float64:
        return array
    with np.errstate(invalid="ignore"):
        return array.astype(np.float64)


def _block(schema: ModelSchema, numbers: Array, texts: Iterable[Array]) -> Block:
    named = {schema.names[i]: text for i, text in zip(schema.categorical, texts, strict=True)}
    return Block(schema.names, schema.positions, numbers, named)


def _numbers(features: Sequence[Feature], columns: Sequence[Sequence[Any]], rows: int) -> Array:
    """Columns of JSON scalars or bytes as one array of shape (features, rows) float64."""
    flat = list(chain.from_iterable(columns))
    numbers = doubles(flat)
    if numbers is None:
        if not NUMBERS.issuperset(map(type, flat)):
            pairs = zip(features, columns, strict=True)
            flat = [_number(feature, value) for feature, column in pairs for value in column]
        numbers = np.array(flat, np.float64)
    return numbers.reshape(len(features), rows)


def _number(feature: Feature, value: object) -> float | None:
    """A number, also as text (a BYTES matrix carries them so); empty text is null."""
    if value is None or isinstance(value, int | float):
        return value
    if not isinstance(value, str | bytes):
        raise PayloadError(feature.name, f"{json_type(value)} is no number", reason="wrong_type")
    text = (value if isinstance(value, str) else _decoded(feature, value)).strip()
    if not text:
        return None
    if feature.type == "boolean" and text.lower() in _TRUTH:
        return _TRUTH[text.lower()]
    try:
        return float(text)
    except ValueError:
        raise PayloadError(feature.name, "text that is no number in a numeric column", reason="wrong_type") from None


def _category(feature: Feature, value: object) -> str | None:
    """The text of a category: an integral number is an index into coded categories, else its own decimal text.

    Booleans count as 0 and 1; NaN and null are None. A number outside the index is kept as text: it is a new category.
    """
    if isinstance(value, bytes):
        return _decoded(feature, value)
    if isinstance(value, float):
        if isnan(value):
            return None
        value = int(value) if value.is_integer() else value
    if isinstance(value, int):
        known = feature.categories
        return known[value] if feature.coded and 0 <= value < len(known) else str(int(value))
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float):
        return repr(value)
    raise PayloadError(feature.name, f"{json_type(value)} is no category", reason="wrong_type")


def _decoded(feature: Feature, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise PayloadError(feature.name, "BYTES that are not UTF-8", reason="not_utf8") from None
