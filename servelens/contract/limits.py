"""How much of a stranger's payload is worth decoding: one value that every decoder takes as a parameter.

Apart so that the logger (no numpy) and the numpy decoders bound the same things alike.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one body; beyond any of them a decoder raises `TooLarge`."""

    json_bytes: int = 16 << 20
    """Bytes of JSON text; binary tensors behind it do not count (they are never copied)."""
    containers: int = 1 << 20
    """Opening braces and brackets: three bytes of text make 64 bytes of Python each, bytes alone bound little."""
    depth: int = 64
    """Nested objects and arrays."""
    tensors: int = 4096
    """Tensors in one request or response."""
    dimensions: int = 32
    """Length of a `shape`; numpy 1.26 can hold no more."""
    elements: int = 1 << 24
    """Elements of one tensor, zero-sized dimensions counted as one (128 MiB as FP64)."""


LIMITS = Limits()
