"""The Open Inference Protocol on the wire: names, datatypes, and where in a body each tensor lies. No numpy, no I/O.

Apart from `oip`, which reads the values, because the logger only has to cut a body open (to redact a tensor, to count
them) and its image has no numpy. Nothing here copies a tensor: spans are offsets into the body.

Source: open-inference-protocol, specification/protocol/inference_rest.md, and the binary tensor data extension
(Triton docs/protocol/extension_binary_data.md).
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias, cast

from servelens.contract.errors import PayloadError, TooLarge
from servelens.contract.jsontext import Json, json_end, json_type, parse_object
from servelens.contract.limits import LIMITS, Limits

INFERENCE_HEADER_CONTENT_LENGTH: Final = "Inference-Header-Content-Length"
CONTENT_TYPE_JSON: Final = "application/json"
CONTENT_TYPE_BINARY: Final = "application/octet-stream"

BINARY_DATA_SIZE: Final = "binary_data_size"  # on a tensor: its bytes behind the JSON
BINARY_DATA: Final = "binary_data"  # on a requested output: answer it in binary
BINARY_DATA_OUTPUT: Final = "binary_data_output"  # on a request: answer every output in binary
SHARED_MEMORY_REGION: Final = "shared_memory_region"  # Triton: the data is not in the body

Kind: TypeAlias = Literal["boolean", "integer", "number", "string"]
Side: TypeAlias = Literal["inputs", "outputs"]  # under which key a request, a response keeps its tensors
Span: TypeAlias = tuple[int, int]  # [start, stop) in the body

ITEM_SIZE: Final[Mapping[str, int | None]] = {
    "BOOL": 1,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 4,
    "UINT64": 8,
    "INT8": 1,
    "INT16": 2,
    "INT32": 4,
    "INT64": 8,
    "FP16": 2,
    "BF16": 2,
    "FP32": 4,
    "FP64": 8,
    "BYTES": None,
}
"""Bytes per element in binary data, little-endian; BYTES varies: uint32 length, then the bytes, per element."""

JSON_KIND: Final[Mapping[str, Kind]] = {
    "BOOL": "boolean",
    "UINT8": "integer",
    "UINT16": "integer",
    "UINT32": "integer",
    "UINT64": "integer",
    "INT8": "integer",
    "INT16": "integer",
    "INT32": "integer",
    "INT64": "integer",
    "FP16": "number",
    "BF16": "number",
    "FP32": "number",
    "FP64": "number",
    "BYTES": "string",
}
"""What the elements of a JSON `data` array are."""

BINARY_ONLY: Final = frozenset({"FP16", "BF16"})
"""Datatypes we never write as JSON: the protocol names no form, KServe and Triton refuse one (MLServer sends it)."""

_BLANK: Final = b" \t\r\n"  # RFC 8259 section 2
_JSON_TAIL: Final = b"}" + _BLANK


class Layout(NamedTuple):
    """A V2 body cut open: `body[:header_length]` is the JSON, parsed as `header`.

    `tensors` are the objects under `inputs` or `outputs`; `spans[i]` is where tensor i has its binary data, None if its
    data is in the JSON. The spans follow each other without gap and end where the body ends.
    """

    header: dict[str, Json]
    header_length: int
    tensors: Sequence[dict[str, Json]]
    spans: Sequence[Span | None]


def split_body(
    body: bytes | memoryview, side: Side, header_length: int | None = None, limits: Limits = LIMITS
) -> Layout:
    """Cut a request (`inputs`) or response (`outputs`) body open; see `read_header` for a body without its header."""
    header, length = read_header(body, header_length, limits)
    return lay_out(header, length, body, side, limits, exact=header_length is not None)


def read_header(
    body: bytes | memoryview, header_length: int | None = None, limits: Limits = LIMITS
) -> tuple[dict[str, Json], int]:
    """The JSON object a body starts with, and how many bytes of the body it takes.

    Without `header_length` (KServe's logger drops the HTTP header) the whole body is tried as JSON, then the end of its
    first object is looked for. Raises PayloadError or TooLarge.
    """
    if header_length is not None:
        if not 0 < header_length <= len(body):
            reason = "truncated" if header_length > 0 else "wrong_length"
            problem = f"says {header_length} bytes of JSON, the body has {len(body)}"
            raise PayloadError(INFERENCE_HEADER_CONTENT_LENGTH, problem, reason=reason)
        return parse_object(body[:header_length], "body", limits), header_length
    whole: PayloadError | None = None
    if body and body[-1] in _JSON_TAIL and len(body) <= limits.json_bytes:
        try:
            # Blank space may be data too: a tensor of UINT8 tens is all newlines.
            return parse_object(body, "body", limits), len(bytes(body).rstrip(_BLANK))
        except PayloadError as error:
            whole = error
    end = json_end(body, "body", limits)
    if whole is not None and not bytes(body[end:]).strip(_BLANK):
        raise whole  # nothing follows, so this was the whole JSON and what is wrong with it is known
    return parse_object(body[:end], "body", limits), end


def lay_out(
    header: dict[str, Json],
    header_length: int,
    body: bytes | memoryview,
    side: Side,
    limits: Limits = LIMITS,
    *,
    exact: bool = False,
) -> Layout:
    """Where each tensor of a parsed header has its binary data in the body.

    Raises PayloadError if the sizes the tensors declare do not add up to what follows the JSON. Unless `header_length`
    is `exact`, blank space behind the JSON still belongs to it.
    """
    tensors = _tensor_objects(header, side, limits)
    spans: list[Span | None] = []
    position = header_length
    for index, tensor in enumerate(tensors):
        if type(tensor) is not dict:
            problem = f"is {json_type(tensor)}, expected a tensor object"
            raise PayloadError(f"{side}[{index}]", problem, reason="wrong_type")
        size = _binary_size(tensor, side, index) if tensor.get("parameters") else None
        spans.append(None if size is None else (position, position + size))
        position += size or 0
    gap = len(body) - position
    if gap:
        _check_gap(body, header_length, gap, side, exact=exact)
        spans = [None if span is None else (span[0] + gap, span[1] + gap) for span in spans]
    return Layout(header, header_length + gap, cast("list[dict[str, Json]]", tensors), spans)


def _check_gap(body: bytes | memoryview, header_length: int, gap: int, side: Side, *, exact: bool) -> None:
    if gap < 0:
        left = len(body) - header_length
        problem = f"declare {left - gap} bytes of binary data, the body has {left} behind its JSON"
        raise PayloadError(side, problem, reason="truncated")
    if exact or bytes(body[header_length : header_length + gap]).strip(_BLANK):
        raise PayloadError("body", f"{gap} bytes belong to no tensor", reason="wrong_length")


def parse_header_length(value: str) -> int:
    """The value of an Inference-Header-Content-Length header: decimal ASCII digits, nothing else."""
    if not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise PayloadError(INFERENCE_HEADER_CONTENT_LENGTH, "is not a decimal number of bytes", reason="wrong_length")
    return int(value)


def _tensor_objects(header: dict[str, Json], side: Side, limits: Limits) -> list[Json]:
    tensors = header.get(side)
    if type(tensors) is not list:
        if "error" in header:
            raise PayloadError(side, "the body is an error message, not tensors", reason="error_response")
        raise PayloadError(side, f"is {json_type(tensors)}, expected an array of tensors", reason="wrong_type")
    if len(tensors) > limits.tensors:
        raise TooLarge(side, f"{len(tensors)} tensors, the limit is {limits.tensors}")
    return tensors


def _binary_size(tensor: dict[str, Json], side: Side, index: int) -> int | None:
    where, parameters = f"{side}[{index}]", tensor["parameters"]
    if type(parameters) is not dict:
        problem = f"is {json_type(parameters)}, expected an object"
        raise PayloadError(f"{where}.parameters", problem, reason="wrong_type")
    if SHARED_MEMORY_REGION in parameters:
        raise PayloadError(where, "the data is in shared memory, not in the body", reason="shared_memory")
    size = parameters.get(BINARY_DATA_SIZE)
    if size is None:
        return None
    if type(size) is not int or size < 0:
        problem = "is not a number of bytes"
        raise PayloadError(f"{where}.parameters.{BINARY_DATA_SIZE}", problem, reason="wrong_type")
    if "data" in tensor:
        raise PayloadError(where, f"has both data and {BINARY_DATA_SIZE}", reason="malformed")
    return size
