"""One tensor's elements between JSON lists, binary data and numpy: the datatype table and its readers and writers.

Apart from `oip`, which knows requests and responses and no bytes. Elements are little-endian and row-major
(binary tensor data extension), whatever the machine.
"""

import struct
from array import array
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from math import prod
from typing import Any, Final, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from servelens.contract.errors import PayloadError, TooLarge
from servelens.contract.jsontext import Json, json_type
from servelens.contract.limits import Limits
from servelens.contract.wire import BINARY_ONLY, ITEM_SIZE, JSON_KIND, Kind

Array: TypeAlias = npt.NDArray[Any]

DTYPE: Final[Mapping[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype("<f4"),  # numpy has no bfloat16; every one of them is a float32 exactly
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(np.object_),  # of bytes, None for a JSON null
}
"""The numpy dtype a decoded tensor of each datatype has."""

DATATYPE: Final[Mapping[np.dtype[Any], str]] = {dtype: name for name, dtype in DTYPE.items() if name != "BF16"}
"""The datatype an array is sent as unless another is asked for (strings: BYTES)."""

_LENGTH = struct.Struct("<I")
_BOOLEANS: Final[frozenset[type]] = frozenset({bool, int})
_INTEGERS: Final[frozenset[type]] = frozenset({int, float, bool})
NUMBERS: Final[frozenset[type]] = frozenset({int, float, bool, type(None)})
_STRINGS: Final[frozenset[type]] = frozenset({str, type(None)})


def check_shape(shape: Json, field: str, limits: Limits) -> tuple[tuple[int, ...], int]:
    """The shape and its number of elements. Raises PayloadError, or TooLarge before anything is allocated."""
    if type(shape) is not list:
        raise PayloadError(field, f"shape is {json_type(shape)}, expected an array", reason="wrong_shape")
    if len(shape) > limits.dimensions:
        raise TooLarge(field, f"has a shape of {len(shape)} dimensions, the limit is {limits.dimensions}")
    for dimension in shape:
        if type(dimension) is not int or dimension < 0:
            raise PayloadError(field, "has a dimension that is no whole number from 0 up", reason="wrong_shape")
    dimensions = cast("list[int]", shape)
    count = prod(dimensions)
    # With a dimension of 0 nothing is stored, yet numpy still multiplies the others into its strides.
    if (count or prod([dimension or 1 for dimension in dimensions])) > limits.elements:
        raise TooLarge(field, f"has a shape of more than {limits.elements} elements, which is the limit")
    return tuple(dimensions), count


def read_json(data: Json, datatype: str, count: int, field: str) -> Array:
    """`data`, nested or flat, as an array of shape (count,).

    Nesting is read in row-major order without comparing it with the shape, as Triton and KServe do. The server may
    coerce elements to the datatype (inference_rest.md), so what keeps the value is accepted: integral floats as
    integers, 0 and 1 as BOOL, booleans as numbers; null is NaN for floats and None for BYTES. FP16 and BF16, which have
    no JSON form but are sent by MLServer, are rounded from the number.
    """
    values = _flatten(data, field)
    if len(values) != count:
        raise PayloadError(field, f"has {len(values)} elements, the shape declares {count}", reason="wrong_shape")
    return _READ_JSON[JSON_KIND[datatype]](values, datatype, field)


def read_binary(data: memoryview, datatype: str, count: int, field: str) -> Array:
    """`data` as an array of shape (count,); a read-only view of it except for BOOL, BF16 and BYTES."""
    size = ITEM_SIZE[datatype]
    if size is None:
        return _read_bytes(data, count, field)
    if len(data) != count * size:
        problem = f"{len(data)} bytes of binary data, {count} elements of {datatype} are {count * size}"
        raise PayloadError(field, problem, reason="wrong_length")
    if datatype == "BOOL":
        return np.not_equal(np.frombuffer(data, np.uint8), 0)
    if datatype == "BF16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, DTYPE[datatype])


def write_json(data: Array, datatype: str, field: str) -> list[Json]:
    """The elements of an array as (nested) JSON lists; NaN becomes null. Raises PayloadError for what JSON lacks."""
    if datatype in BINARY_ONLY:
        raise PayloadError(field, f"{datatype} has no JSON form: send the tensor as binary data", reason="wrong_type")
    if datatype == "BYTES":
        data = np.array([_text(element, field) for element in data.flat], dtype=object).reshape(data.shape)
    elif data.dtype.kind == "f" and np.isinf(data).any():
        raise PayloadError(field, "JSON has no infinity: send the tensor as binary data", reason="non_finite")
    values: list[Json] = data.tolist()
    return values


def write_binary(data: Array, datatype: str, field: str) -> bytes:
    """The elements of an array as binary data; float32 is rounded to the nearest BF16, ties to even."""
    if datatype == "BYTES":
        parts = [_as_bytes(element, field) for element in data.flat]
        return b"".join(chain.from_iterable((_LENGTH.pack(len(part)), part) for part in parts))
    if datatype == "BF16":
        return _to_bfloat16(data).tobytes()
    return data.astype(DTYPE[datatype], copy=False).tobytes()


def _flatten(data: Json, field: str) -> list[Json]:
    if type(data) is not list:
        raise PayloadError(field, f"data is {json_type(data)}, expected an array", reason="wrong_type")
    while data and type(data[0]) is list:
        rows = [row for row in data if type(row) is list]
        if len(rows) != len(data):
            raise PayloadError(field, "data mixes arrays and elements", reason="wrong_shape")
        data = list(chain.from_iterable(rows))
    return data


def _check_types(values: list[Any], types: frozenset[type], datatype: str, field: str) -> None:
    if not types.issuperset(map(type, values)):
        names = ", ".join(sorted({json_type(value) for value in values}))
        raise PayloadError(field, f"{names} cannot be {datatype}", reason="wrong_type")


def _read_booleans(values: list[Any], datatype: str, field: str) -> Array:
    _check_types(values, _BOOLEANS, datatype, field)
    if not {0, 1}.issuperset(values):  # True == 1
        raise PayloadError(field, f"an integer other than 0 and 1 cannot be {datatype}", reason="out_of_range")
    return np.array(values, np.bool_)


def _read_integers(values: list[Any], datatype: str, field: str) -> Array:
    _check_types(values, _INTEGERS, datatype, field)
    if float in map(type, values):
        if not all(type(value) is not float or value.is_integer() for value in values):
            raise PayloadError(field, f"a fraction cannot be {datatype}", reason="wrong_type")
        values = list(map(int, values))
    dtype = DTYPE[datatype]
    bounds = np.iinfo(dtype)
    if values and not (min(values) >= bounds.min and max(values) <= bounds.max):  # numpy 1.26 would wrap them
        raise PayloadError(field, f"an integer is out of the range of {datatype}", reason="out_of_range")
    return np.array(values, dtype)


def _read_numbers(values: list[Any], datatype: str, field: str) -> Array:
    wide = doubles(values)
    if wide is None:
        _check_types(values, NUMBERS, datatype, field)
        wide = np.array(values, np.float64)
    if datatype == "FP64":
        return wide
    with np.errstate(over="ignore"):  # beyond the range is infinite, for the server too
        narrow = wide.astype(DTYPE[datatype])
    return (_to_bfloat16(narrow).astype("<u4") << 16).view("<f4") if datatype == "BF16" else narrow


def doubles(values: Iterable[Any]) -> Array | None:
    """JSON values as float64 if they are numbers and booleans, else None (for nulls too).

    `array` refuses text and converts in one pass; numpy would read "1.5" as a number unless looked for first.
    """
    try:
        return np.frombuffer(array("d", values), np.float64)
    except TypeError:
        return None


def _read_strings(values: list[Any], datatype: str, field: str) -> Array:
    _check_types(values, _STRINGS, datatype, field)
    return np.array([None if value is None else value.encode() for value in values], np.object_)


_READ_JSON: Final[Mapping[Kind, Callable[[list[Any], str, str], Array]]] = {
    "boolean": _read_booleans,
    "integer": _read_integers,
    "number": _read_numbers,
    "string": _read_strings,
}


def _read_bytes(data: memoryview, count: int, field: str) -> Array:
    if count * _LENGTH.size > len(data):
        problem = f"{len(data)} bytes of binary data cannot hold {count} elements of BYTES"
        raise PayloadError(field, problem, reason="wrong_length")
    elements: list[bytes] = []
    position = 0
    for _ in range(count):
        start = position + _LENGTH.size
        if start > len(data):
            raise PayloadError(field, "BYTES data ends inside an element's length", reason="truncated")
        position = start + _LENGTH.unpack_from(data, position)[0]
        if position > len(data):
            raise PayloadError(field, "an element of BYTES is longer than the data", reason="truncated")
        elements.append(bytes(data[start:position]))
    if position != len(data):
        problem = f"{len(data) - position} bytes behind the last element of BYTES"
        raise PayloadError(field, problem, reason="wrong_length")
    return np.array(elements, np.object_)


def _to_bfloat16(data: Array) -> Array:
    """The upper halves of float32, rounded to nearest even; a NaN stays one wherever its payload bits were."""
    bits = np.ascontiguousarray(data, "<f4").reshape(-1).view("<u4")
    rounded = (bits + (0x7FFF + (bits >> 16 & 1)).astype("<u4") >> 16).astype("<u2")
    return np.where(np.isnan(bits.view("<f4")), (bits >> 16 | 0x40).astype("<u2"), rounded)


def _as_bytes(element: object, field: str) -> bytes:
    if isinstance(element, str):
        return element.encode()
    if isinstance(element, bytes):
        return element
    raise PayloadError(field, f"{json_type(element)} has no binary form as BYTES", reason="wrong_type")


def _text(element: object, field: str) -> str | None:
    if element is None or isinstance(element, str):
        return element
    try:
        return _as_bytes(element, field).decode()
    except UnicodeDecodeError:
        problem = "BYTES that are not UTF-8 have no JSON form: send the tensor as binary data"
        raise PayloadError(field, problem, reason="not_utf8") from None
