"""The V1 inference protocol (TensorFlow Serving's predict API as KServe speaks it): `instances` in, `predictions` out.

Values stay JSON here: V1 carries no datatypes, only a model's schema gives its rows columns (`rows`).
Source: KServe docs concepts/architecture/data-plane/v1-protocol, kserve `utils.get_predict_input`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from servelens.contract.errors import PayloadError
from servelens.contract.jsontext import Json, dump_json, json_type, parse_object
from servelens.contract.limits import LIMITS, Limits


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """`instances`: one a row or block of rows: scalar, (nested) list, {feature: value} or {feature: [values]}."""

    instances: Sequence[Json]
    signature_name: str = ""


@dataclass(frozen=True, slots=True)
class PredictResponse:
    """`predictions`: one element per row, each a scalar, list or {name: value}."""

    predictions: Sequence[Json]


def decode_request(body: bytes | memoryview, limits: Limits = LIMITS) -> PredictRequest:
    """A V1 request body. Raises PayloadError or TooLarge."""
    return request_of(parse_object(body, "body", limits))


def decode_response(body: bytes | memoryview, limits: Limits = LIMITS) -> PredictResponse:
    """A V1 response body. Raises PayloadError (`error_response` for an error message) or TooLarge."""
    return response_of(parse_object(body, "body", limits))


def request_of(document: dict[str, Json]) -> PredictRequest:
    """The request a parsed body holds.

    `inputs` counts before `instances`, as in KServe; a columnar `inputs` object (TensorFlow Serving's column format)
    becomes its one element.
    """
    key = "inputs" if "inputs" in document else "instances"
    instances = document.get(key)
    if type(instances) is dict:
        instances = [instances]
    if type(instances) is not list:
        raise PayloadError(key, f"is {json_type(instances)}, expected an array of rows", reason="wrong_type")
    signature = document.get("signature_name")
    return PredictRequest(instances, signature if type(signature) is str else "")


def response_of(document: dict[str, Json]) -> PredictResponse:
    """The response a parsed body holds."""
    predictions = document.get("predictions")
    if type(predictions) is not list:
        reason = "error_response" if "error" in document else "wrong_type"
        raise PayloadError("predictions", f"is {json_type(predictions)}, expected an array", reason=reason)
    return PredictResponse(predictions)


def encode_request(request: PredictRequest) -> bytes:
    """The body of a V1 request; NaN and infinite numbers become null."""
    document: dict[str, Json] = {"instances": list(request.instances)}
    if request.signature_name:
        document["signature_name"] = request.signature_name
    return dump_json(document)


def encode_response(response: PredictResponse) -> bytes:
    """The body of a V1 response; NaN and infinite numbers become null."""
    return dump_json({"predictions": list(response.predictions)})
