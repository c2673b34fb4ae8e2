"""Tensors hidden inside a V2 body, in JSON and in binary data: whole ones, and a column of a packed `[n, k]` one.

Apart from `redaction`, which decides; no numpy, for the logger has none. Bytes are little-endian, BYTES elements carry
a uint32 length each (Triton, extension_binary_data.md). Texts are hidden in place; a number has no masked form, so a
whole numeric tensor goes, and in a packed one a float becomes NaN (JSON: null).
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from logger.hiding import Hiding
from servelens.contract.errors import PayloadError
from servelens.contract.wire import BINARY_DATA_SIZE

_LENGTH: Final = struct.Struct("<I")
_NAN: Final = {"FP16": b"\x00\x7e", "BF16": b"\xc0\x7f", "FP32": struct.pack("<f", float("nan"))} | {
    "FP64": struct.pack("<d", float("nan"))
}


@dataclass(slots=True)
class Tensor:
    """A tensor object of the header, changed in place, and its binary data, None if its data is in the JSON."""

    header: dict[str, Any]
    binary: bytes | None

    @property
    def name(self) -> str:
        """Its name, empty if it has none."""
        name = self.header.get("name")
        return name if isinstance(name, str) else ""

    def _put(self, binary: bytes) -> None:
        self.binary = binary
        self.header["parameters"] = {**self.header["parameters"], BINARY_DATA_SIZE: len(binary)}


def hide_whole(tensor: Tensor, hiding: Hiding) -> bool:
    """Hide all of it; False if it has to be left out."""
    if hiding.action == "drop" or tensor.header.get("datatype") != "BYTES":
        return False
    if tensor.binary is None:
        tensor.header["data"] = hiding.value(tensor.header.get("data"))
    else:
        tensor._put(_each(tensor.binary, lambda _, element: hiding.raw(element)))  # noqa: SLF001
    return True


def hide_column(tensor: Tensor, hiding: Hiding, index: int, width: int) -> bool:
    """Hide column `index` of `width`; False if it has to be left out whole. PayloadError if its data is not so wide."""
    if tensor.binary is None:
        _in_json(tensor.header.get("data"), hiding, index, width)
        return True
    datatype = str(tensor.header.get("datatype"))
    if datatype == "BYTES":
        tensor._put(  # noqa: SLF001
            _each(tensor.binary, lambda at, element: hiding.raw(element) if at % width == index else element)
        )
        return True
    nothing = _NAN.get(datatype)
    if nothing is None:
        return False
    data, size = bytearray(tensor.binary), len(nothing)
    if len(data) % (size * width):
        raise PayloadError(tensor.name, "holds no whole rows", reason="shape")
    for start in range(index * size, len(data), size * width):
        data[start : start + size] = nothing
    tensor._put(bytes(data))  # noqa: SLF001
    return True


def _in_json(data: Any, hiding: Hiding, index: int, width: int) -> None:
    rows = [data] if not isinstance(data, list) or not any(isinstance(row, list) for row in data) else data
    for row in rows:
        if not isinstance(row, list) or len(row) % width or any(isinstance(value, list) for value in row):
            raise PayloadError("data", f"is no list of rows of {width}", reason="shape")
        for at in range(index, len(row), width):
            row[at] = hiding.value(row[at])


def _each(binary: bytes, change: Callable[[int, bytes], bytes]) -> bytes:
    """BYTES elements, each changed."""
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
    return b"".join(parts)
