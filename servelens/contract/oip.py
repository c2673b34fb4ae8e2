"""Requests and responses of the Open Inference Protocol (V2) over HTTP/REST, in JSON or with binary tensors.

Bodies in, frozen values out, and back. Apart from `wire` (offsets, no numpy) and `elements` (those of one tensor).
Called by the detector's workers, the explainer's routes and its predictor client.
Source: open-inference-protocol, specification/protocol/inference_rest.md; the binary tensor data extension (Triton
docs/protocol/extension_binary_data.md).
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from servelens.contract import elements
from servelens.contract.elements import DATATYPE, DTYPE, Array
from servelens.contract.errors import PayloadError
from servelens.contract.jsontext import Json, dump_json, json_type
from servelens.contract.limits import LIMITS, Limits
from servelens.contract.wire import BINARY_DATA, BINARY_DATA_OUTPUT, BINARY_DATA_SIZE, Layout, Side, Span, split_body

ALL = True  # `binary=ALL`: every tensor as binary data


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A named array: `data` has shape `shape` and dtype `elements.DTYPE[datatype]` (BYTES: objects, bytes or None)."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Array
    parameters: Mapping[str, Json] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, data: Array, datatype: str | None = None) -> "Tensor":
        """A tensor of an array, as `datatype` or what its dtype stands for; text becomes BYTES in UTF-8.

        Raises PayloadError for a dtype the protocol has no datatype for.
        """
        if data.dtype.kind in "US":
            data = data.astype(object)
        if data.dtype.kind == "O":
            encoded = [element.encode() if isinstance(element, str) else element for element in data.flat]
            data = np.array(encoded, object).reshape(data.shape)
        chosen = datatype or DATATYPE.get(data.dtype.newbyteorder("<"))
        if chosen is None or not _holds(chosen, data):
            problem = f"an array of {data.dtype} cannot be {datatype or 'a datatype of the protocol'}"
            raise PayloadError(name, problem, reason="wrong_type")
        return cls(name, chosen, data.shape, data.astype(DTYPE[chosen], copy=False))


def _holds(datatype: str, data: Array) -> bool:
    if datatype == "BYTES" or data.dtype == np.object_:
        return datatype == "BYTES" and data.dtype == np.object_
    return datatype in DTYPE and np.can_cast(data.dtype, DTYPE[datatype], "same_kind")


@dataclass(frozen=True, slots=True, eq=False)
class RequestedOutput:
    """An output the client asks for."""

    name: str
    parameters: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class InferRequest:
    """An inference request; what the body leaves out is empty. `model_name` is KServe's, not the protocol's."""

    inputs: tuple[Tensor, ...]
    id: str = ""
    outputs: tuple[RequestedOutput, ...] = ()
    parameters: Mapping[str, Json] = field(default_factory=dict)
    model_name: str = ""

    def wants_binary(self, output: str) -> bool:
        """Whether the client asked for this output as binary data: its own `binary_data`, else `binary_data_output`."""
        for requested in self.outputs:
            if requested.name == output and BINARY_DATA in requested.parameters:
                return requested.parameters[BINARY_DATA] is True
        return self.parameters.get(BINARY_DATA_OUTPUT) is True


@dataclass(frozen=True, slots=True, eq=False)
class InferResponse:
    """An inference response; what the body leaves out is empty (the extension's own example has no `model_name`)."""

    outputs: tuple[Tensor, ...]
    model_name: str = ""
    model_version: str = ""
    id: str = ""
    parameters: Mapping[str, Json] = field(default_factory=dict)


class Encoded(NamedTuple):
    """A body, and the value of its Inference-Header-Content-Length header: None if the body is JSON alone."""

    body: bytes
    header_length: int | None


def decode_request(body: bytes | memoryview, header_length: int | None = None, limits: Limits = LIMITS) -> InferRequest:
    """An inference request; numeric tensors sent as binary data are views of `body`. Raises PayloadError, TooLarge."""
    return request_of(split_body(body, "inputs", header_length, limits), body, limits)


def decode_response(
    body: bytes | memoryview, header_length: int | None = None, limits: Limits = LIMITS
) -> InferResponse:
    """An inference response; see `decode_request`. An error message is a PayloadError with reason `error_response`."""
    return response_of(split_body(body, "outputs", header_length, limits), body, limits)


def request_of(layout: Layout, body: bytes | memoryview, limits: Limits = LIMITS) -> InferRequest:
    """The request in a body that is cut open already."""
    header = layout.header
    return InferRequest(
        inputs=_tensors(layout, body, "inputs", limits),
        id=_text(header, "id"),
        outputs=_requested(header.get("outputs")),
        parameters=_parameters(header, "body"),
        model_name=_text(header, "model_name"),
    )


def response_of(layout: Layout, body: bytes | memoryview, limits: Limits = LIMITS) -> InferResponse:
    """The response in a body that is cut open already."""
    header = layout.header
    return InferResponse(
        outputs=_tensors(layout, body, "outputs", limits),
        model_name=_text(header, "model_name"),
        model_version=_text(header, "model_version"),
        id=_text(header, "id"),
        parameters=_parameters(header, "body"),
    )


def encode_request(request: InferRequest, binary: Collection[str] | bool = (), *, nested: bool = False) -> Encoded:
    """The body of a request: `binary` names the tensors to send as binary data (`ALL`: every one), the others are JSON.

    `nested` writes JSON data in the tensor's shape, else flat. Raises PayloadError where JSON has no form: FP16, BF16,
    infinity, BYTES that are not UTF-8; or BYTES that are None as binary data. NaN becomes null.
    """
    header: dict[str, Json] = {"id": request.id, "model_name": request.model_name}
    header["parameters"] = dict(request.parameters)
    header["outputs"] = [
        _present({"name": output.name, "parameters": dict(output.parameters)}) for output in request.outputs
    ]
    return _encode(_present(header), "inputs", request.inputs, binary, nested)


def encode_response(response: InferResponse, binary: Collection[str] | bool = (), *, nested: bool = False) -> Encoded:
    """The body of a response; see `encode_request`."""
    header: dict[str, Json] = {
        "model_name": response.model_name,
        "model_version": response.model_version,
        "id": response.id,
        "parameters": dict(response.parameters),
    }
    return _encode(_present(header), "outputs", response.outputs, binary, nested)


def _tensors(layout: Layout, body: bytes | memoryview, side: Side, limits: Limits) -> tuple[Tensor, ...]:
    return tuple(
        [
            _tensor(document, layout.spans[index], body, f"{side}[{index}]", limits)
            for index, document in enumerate(layout.tensors)
        ]
    )


def _tensor(
    document: dict[str, Json], span: Span | None, body: bytes | memoryview, where: str, limits: Limits
) -> Tensor:
    name, datatype = document.get("name"), document.get("datatype")
    if type(name) is not str:
        raise PayloadError(f"{where}.name", f"is {json_type(name)}, expected a string", reason="wrong_type")
    if type(datatype) is not str or datatype not in DTYPE:
        raise PayloadError(f"{where}.datatype", f"is not one of {', '.join(DTYPE)}", reason="wrong_type")
    shape, count = elements.check_shape(document.get("shape"), where, limits)
    if span is not None:
        flat = elements.read_binary(memoryview(body)[span[0] : span[1]], datatype, count, where)
    else:
        flat = elements.read_json(document.get("data"), datatype, count, where)
    parameters = _parameters(document, where)
    if span is not None:  # its size says how it travelled, not what it is
        parameters = {key: value for key, value in parameters.items() if key != BINARY_DATA_SIZE}
    return Tensor(name, datatype, shape, flat.reshape(shape), parameters)


def _requested(outputs: Json) -> tuple[RequestedOutput, ...]:
    if not outputs:
        return ()
    if type(outputs) is not list:
        raise PayloadError("outputs", f"is {json_type(outputs)}, expected an array", reason="wrong_type")
    requested = []
    for index, output in enumerate(outputs):
        if type(output) is not dict or type(output.get("name")) is not str:
            raise PayloadError(f"outputs[{index}]", "is not an object with a name", reason="wrong_type")
        requested.append(RequestedOutput(_text(output, "name"), _parameters(output, f"outputs[{index}]")))
    return tuple(requested)


def _text(document: dict[str, Json], key: str) -> str:
    """An optional string; null is absent (KServe answers `"model_version": null`)."""
    value = document.get(key)
    if value is None:
        return ""
    if type(value) is not str:
        raise PayloadError(key, f"is {json_type(value)}, expected a string", reason="wrong_type")
    return value


def _parameters(document: dict[str, Json], where: str) -> dict[str, Json]:
    value = document.get("parameters")
    if value is None:
        return {}
    if type(value) is not dict:
        raise PayloadError(f"{where}.parameters", f"is {json_type(value)}, expected an object", reason="wrong_type")
    return value


def _encode(
    header: dict[str, Json], side: Side, tensors: Iterable[Tensor], binary: Collection[str] | bool, nested: bool
) -> Encoded:
    documents: list[Json] = []
    blobs: list[bytes] = []
    for tensor in tensors:
        parameters = {key: value for key, value in tensor.parameters.items() if key != BINARY_DATA_SIZE}
        document: dict[str, Json] = {"name": tensor.name, "shape": list(tensor.shape), "datatype": tensor.datatype}
        if binary is True or (binary and tensor.name in binary):
            blobs.append(elements.write_binary(tensor.data, tensor.datatype, tensor.name))
            parameters[BINARY_DATA_SIZE] = len(blobs[-1])
        else:
            data = tensor.data if nested and tensor.shape else tensor.data.reshape(-1)
            document["data"] = elements.write_json(data, tensor.datatype, tensor.name)
        documents.append(document | _present({"parameters": parameters}))
    header[side] = documents
    text = dump_json(header)
    return Encoded(b"".join([text, *blobs]), len(text) if blobs else None)


def _present(document: dict[str, Json]) -> dict[str, Json]:
    """Without its empty members: optional fields are left out, never sent empty."""
    return {key: value for key, value in document.items() if value not in ("", {}, [])}
