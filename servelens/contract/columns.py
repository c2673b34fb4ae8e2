"""One column of a table from whatever carried it: JSON values, the objects of a BYTES tensor, or a typed array.

All of them end in the same column (float64, or text), so that the three ways to send one row give one table.
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

_TRUTH: Final = {"true": 1.0, "false": 0.0}


def column_of(feature: Feature, values: Sequence[object]) -> Array:
    """A column of JSON scalars or bytes, shape (len(values),): float64, or objects, str or None, if categorical.

    Raises PayloadError (`wrong_type`) naming the feature.
    """
    if feature.is_categorical:
        return _categories(feature, values)
    if not NUMBERS.issuperset(map(type, values)):
        values = [_number(feature, value) for value in values]
    return np.array(values, np.float64)


def column_of_array(feature: Feature, array: Array) -> Array:
    """A column of a typed array of any shape, its elements in row-major order."""
    flat = array.reshape(-1)
    if feature.is_categorical or flat.dtype == np.object_:
        return column_of(feature, flat.tolist())
    return flat.astype(np.float64)


def _categories(feature: Feature, values: Iterable[object]) -> Array:
    texts: list[str | None] = [value if type(value) is str else _category(feature, value) for value in values]
    return np.array(texts, np.object_)


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


def _decoded(feature: Feature, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise PayloadError(feature.name, "BYTES that are not UTF-8", reason="not_utf8") from None


def columns_of_rows(schema: ModelSchema, rows: Sequence[Sequence[Any]]) -> dict[str, Array]:
    """The feature columns of rows of JSON scalars, each as wide as the schema.

    Numeric columns are made in one array: twenty of one element cost more than all the rest of a one-row request.
    """
    width = len(schema.names)
    flat = list(chain.from_iterable(rows))
    numbers = doubles(chain.from_iterable([flat[i::width] for i in schema.numeric]) if schema.categorical else flat)
    if not rows or numbers is None:
        return {feature.name: column_of(feature, flat[i::width]) for i, feature in enumerate(schema.features)}
    if not schema.categorical:
        return dict(zip(schema.names, numbers.reshape(-1, width).T.copy(), strict=True))
    block = iter(numbers.reshape(-1, len(rows)))
    return {
        feature.name: _categories(feature, flat[i::width]) if feature.is_categorical else next(block)
        for i, feature in enumerate(schema.features)
    }


def columns_of_matrix(schema: ModelSchema, matrix: Array) -> dict[str, Array]:
    """The feature columns of an array of shape (rows, features)."""
    if matrix.dtype == np.object_:
        return {feature.name: column_of_array(feature, matrix[:, i]) for i, feature in enumerate(schema.features)}
    columns = dict(zip(schema.names, np.array(matrix.T, np.float64, order="C"), strict=True))
    for i in schema.categorical:
        columns[schema.names[i]] = column_of_array(schema.features[i], matrix[:, i])
    return columns
