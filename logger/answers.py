"""The few answers the tap gives itself, where the predictor gives none."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import orjson

# Reason, as counted in servelens_upstream_errors_total: status and text.
FAILURES: Final[Mapping[str, tuple[HTTPStatus, str]]] = {
    "refused": (HTTPStatus.BAD_GATEWAY, "the predictor refuses connections; is it running, and on this port?"),
    "connect_timeout": (HTTPStatus.SERVICE_UNAVAILABLE, "the predictor accepted no connection in time"),
    "closed_early": (HTTPStatus.BAD_GATEWAY, "the predictor closed the connection before it answered"),
}


def answer(reason: str, method: str) -> bytes:
    """A whole response for a reason of `FAILURES`: typed JSON, and `connection: close`. HEAD gets no body."""
    status, message = FAILURES[reason]
    body = orjson.dumps({"error": message})
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == "HEAD" else body)
