"""What a request path says: which inference protocol, and which model. No bodies are read.

Apart from `rows` since paths are known before, and without, any body.
Source: inference_rest.md (V2), KServe's v1-protocol and TensorFlow Serving's REST API (`/versions/`) for V1.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Literal, NamedTuple, TypeAlias
from urllib.parse import unquote

from servelens.contract.errors import PayloadError

Protocol: TypeAlias = Literal["v1", "v2"]

_ROUTES: Final[Sequence[tuple[Protocol, re.Pattern[str]]]] = (
    ("v1", re.compile(r"/v1/models/([^/:]+)(?:/versions/[^/:]+)?:predict/?\Z")),
    ("v2", re.compile(r"/v2/models/([^/]+)(?:/versions/[^/]+)?/infer/?\Z")),
)
_WITHOUT_ROWS: Final = re.compile(
    r"/v1/models(?:[/:]|\Z)|/v2(?:/(?:models|health|repository)(?:/.*)?)?/?\Z|\A/inference\.GRPCInferenceService/"
)


class Route(NamedTuple):
    """`protocol` is None and `modelname` empty where the path does not say."""

    protocol: Protocol | None
    modelname: str


@lru_cache(maxsize=1024)
def route_of(path: str) -> Route:
    """Protocol and model of an inference path without query, whatever prefix an ingress left before it.

    An unknown path says nothing. Raises PayloadError (`not_inference`) for V1, V2 and gRPC paths whose bodies are no
    JSON with rows: metadata, readiness, `:explain`, ModelInfer.
    """
    for protocol, pattern in _ROUTES:
        match = pattern.search(path)
        if match:
            return Route(protocol, unquote(match[1]))
    if _WITHOUT_ROWS.search(path):
        raise PayloadError("path", "is not that of a V1 predict or V2 infer request", reason="not_inference")
    return Route(None, "")
