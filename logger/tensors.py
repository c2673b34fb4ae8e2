"""Tensors hidden inside a V2 body, in JSON and in binary data: whole ones, and a column of a packed `[n, k]` one.

Apart from `columns`, which decides; no numpy, for the logger has none. Bytes are little-endian, BYTES elements carry
a uint32 length each (Triton, extension_binary_data.md). Texts are hidden in place; a number has no masked form, so a
whole numeric tensor goes, and in a packed one a float becomes NaN (JSON: null), while one of integers goes whole.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from logger.hiding import Hiding
from logger.jsonpath import change_named
from servelens.contract.errors import PayloadError
from servelens.contract.wire import BINARY_DATA_SIZE

_LENGTH: Final = struct.Struct("<I")
_NAN: Final = {"FP16": b"\x00\x7e", "BF16": b"\xc0\x7f", "FP32": struct.pack("<f", float("nan"))} | {
    "FP64": struct.pack("<d", float("nan"))
}
_KNOWN: Final = ("name", "datatype", "shape", "parameters", "data")  # what the protocol says a tensor has


@dataclass(slots=True)
class Tensor:
    """A tensor object of the header, changed in place, and its binary data, None if its data is in the JSON.

    `name` and `shape` are as they came: a path may hide them before a column is looked for.
    """

    header: dict[str, Any]
    binary: bytes | None
    name: str = field(init=False)
    shape: list[Any] | None = field(init=False)

    def __post_init__(self) -> None:
        self.name, shape = self.called, self.header.get("shape")
        self.shape = shape if isinstance(shape, list) else None

    @property
    def called(self) -> str:
        """Its name as it is stored."""
        name = self.header.get("name")
        return name if isinstance(name, str) else ""

    @property
    def wide(self) -> bool:
        """Whether its rows have more than one element, so that it may hold columns without names."""
        if self.shape is not None and len(self.shape) > 1 and self.shape[-1] != 1:
            return True
        data = self.header.get("data")
        return isinstance(data, list) and any(isinstance(row, list) and len(row) != 1 for row in data)

    def packs(self, width: int) -> bool:
        """Whether it has rows of that width."""
        return self.shape is not None and len(self.shape) > 1 and self.shape[-1] == width

    def put(self, binary: bytes) -> None:
        """Take this binary data in place of what it had."""
        self.binary = binary
        self.header["parameters"] = {**self.header["parameters"], BINARY_DATA_SIZE: len(binary)}


def hide_whole(tensor: Tensor, hiding: Hiding) -> bool:
    """Hide all of it; False if it has to be left out."""
    header = tensor.header
    if hiding.action == "drop" or header.get("datatype") != "BYTES":
        return False
    for member in set(header).difference(_KNOWN):
        del header[member]  # the same values may stand there once more
    if tensor.binary is not None:
        tensor.put(_each(tensor.binary, lambda _, element: hiding.raw(element))[0])
    elif "data" in header:
        header["data"] = hiding.value(header["data"])
    return True


def hide_column(tensor: Tensor, hiding: Hiding, index: int, width: int) -> bool:
    """Hide column `index` of `width`; False if it has to be left out whole. PayloadError if its data is not so wide."""
    datatype = str(tensor.header.get("datatype"))
    if datatype != "BYTES" and datatype not in _NAN:
        return False
    if tensor.binary is None:
        _in_json(tensor.header.get("data"), hiding, index, width)
    elif datatype == "BYTES":
        changed, count = _each(
            tensor.binary, lambda at, element: hiding.raw(element) if at % width == index else element
        )
        _check_rows(count, width)
        tensor.put(changed)
    else:
        nothing = _NAN[datatype]
        data, size = bytearray(tensor.binary), len(nothing)
        _check_rows(len(data), size * width)
        for start in range(index * size, len(data), size * width):
            data[start : start + size] = nothing
        tensor.put(bytes(data))
    return True


def hide_members(tensor: Tensor, name: str, hiding: Hiding) -> bool:
    """Hide what is called `name` where a tensor has no such thing: parameters, objects as data, unknown members."""
    header = tensor.header
    strange = {member: value for member, value in header.items() if member not in _KNOWN}
    changed = bool(strange) and change_named(strange, name, hiding.at)
    if changed:
        for member in set(header).difference(_KNOWN):
            del header[member]
        header |= strange
    for part in ("parameters", "data"):
        changed |= change_named(header.get(part), name, hiding.at)
    return changed


def _check_rows(count: int, width: int) -> None:
    if count % width:
        raise PayloadError("data", "holds no whole rows", reason="shape")


def _in_json(data: Any, hiding: Hiding, index: int, width: int) -> None:
    rows = [data] if not isinstance(data, list) or not any(isinstance(row, list) for row in data) else data
    for row in rows:
        if not isinstance(row, list) or len(row) % width or any(isinstance(value, list) for value in row):
            raise PayloadError("data", f"is no list of rows of {width}", reason="shape")
        for at in range(index, len(row), width):
            row[at] = hiding.value(row[at])


def _each(binary: bytes, change: Callable[[int, bytes], bytes]) -> tuple[bytes, int]:
    """BYTES elements, each changed, and how many there are."""
    parts, position, at = list[bytes](), 0, 0
    while position < len(binary):
        end = position + _LENGTH.size
        if end > len(binary):
            raise PayloadError("data", "a BYTES element has no length", reason="truncated")
        (length,) = _LENGTH.unpack_from(binary, position)
        position = end + length
        if position > len(binary):
            raise PayloadError("data", "a BYTES element is cut off", reason="truncated")
        element = change(at, binary[end:position])
        parts += (_LENGTH.pack(len(element)), element)
        at += 1
    return b"".join(parts), at
