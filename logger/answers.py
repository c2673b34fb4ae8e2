"""The few answers the tap gives itself, where no connection to the predictor is to be had."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import orjson

# Reason, as counted in servelens_upstream_errors_total: status and text.
FAILURES: Final[Mapping[str, tuple[HTTPStatus, str]]] = {
    "refused": (HTTPStatus.BAD_GATEWAY, "the predictor refuses connections; is it running, and on this port?"),
    "connect_timeout": (HTTPStatus.SERVICE_UNAVAILABLE, "the predictor accepted no connection in time"),
    "too_many_connections": (HTTPStatus.SERVICE_UNAVAILABLE, "as many connections are open as are allowed here"),
}
# Counted beside them, and not answered: the predictor ended the connection before a byte of its answer.
CLOSED_EARLY: Final = "closed_early"


def answer(reason: str, method: str) -> bytes:
    """A whole response for a reason of `FAILURES`: typed JSON, and `connection: close`. HEAD gets no body."""
    status, message = FAILURES[reason]
    body = orjson.dumps({"error": message})
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == "HEAD" else body)
