"""A real model server on a port of its own: V1 and V2, JSON and binary, of any function; and the ways it can misbehave.

For the explainer's tests and benchmarks. It reads and writes with the contract's codecs, as the demo's predictor does.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from servelens.contract import oip, v1
from servelens.contract.rows import request_table
from servelens.contract.schema import ModelSchema
from servelens.contract.table import Table
from servelens.contract.wire import INFERENCE_HEADER_CONTENT_LENGTH as LENGTH
from servelens.io import http

Array = npt.NDArray[Any]
Function = Callable[[Table], Array]  # (rows,) or (rows, outputs)


@dataclass
class Model:
    """What is served, and what was asked. `trouble` may change an answer, raise, wait or return a Response."""

    schema: ModelSchema
    function: Function
    name: str = "m"
    extensions: tuple[str, ...] = ("binary_tensor_data",)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    trouble: Callable[[Array], Any] | None = None
    statuses: list[int] = field(default_factory=list)  # of the server metadata, in turn
    calls: list[int] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    address: str = ""

    @property
    def host(self) -> str:
        return self.address

    async def _answer(self, request: Request, table: Table) -> Any:
        self.calls.append(table.rows)
        self.headers.append(dict(request.headers))
        self.paths.append(request.url.path)
        answer: Any = np.asarray(self.function(table), np.float64)
        if self.trouble is not None:
            answer = self.trouble(answer)
            if asyncio.iscoroutine(answer):
                answer = await answer
        return answer

    async def predict(self, request: Request) -> Response:
        body = await request.body()
        self.bodies.append(body)
        answer = await self._answer(request, request_table(self.schema, v1.decode_request(body)))
        if isinstance(answer, Response):
            return answer
        return Response(v1.encode_response(v1.PredictResponse(answer.tolist())), media_type="application/json")

    async def infer(self, request: Request) -> Response:
        body, length = await request.body(), request.headers.get(LENGTH)
        self.bodies.append(body)
        asked = oip.decode_request(body, int(length) if length else None)
        answer = await self._answer(request, request_table(self.schema, asked))
        if isinstance(answer, Response):
            return answer
        name = self.schema.outputs.tensor or "output-0"
        tensor = oip.Tensor.of(name, answer)
        encoded = oip.encode_response(
            oip.InferResponse((tensor,), self.name), [name] if asked.wants_binary(name) else ()
        )
        if encoded.header_length is None:
            return Response(encoded.body, media_type="application/json")
        return Response(encoded.body, headers={LENGTH: str(encoded.header_length)})

    async def server(self, _: Request) -> Response:
        status = self.statuses.pop(0) if self.statuses else 200
        return http.json_response({"name": "test", "extensions": list(self.extensions)}, status)

    async def metadata(self, _: Request) -> Response:
        return http.json_response({"name": self.name, "inputs": self.inputs})


@contextmanager
def serving(schema: ModelSchema, function: Function, **more: Any) -> Iterator[Model]:
    """The model behind a real server on a free port."""
    model = Model(schema, function, **more)
    bound = http.bind("127.0.0.1:0")
    model.address = http.address_of(bound)
    routes = [
        Route(f"/v1/models/{model.name}:predict", model.predict, methods=["POST"]),
        Route(f"/v2/models/{model.name}/infer", model.infer, methods=["POST"]),
        Route("/v2", model.server),
        Route(f"/v2/models/{model.name}", model.metadata),
    ]
    server = http.Server(Starlette(routes=routes), bound)
    server.start()
    try:
        yield model
    finally:
        server.stop(0.5)


def matrix(table: Table) -> Array:
    """(rows, features) of a table whose features are all numeric."""
    return np.column_stack(list(table.columns.values()))
