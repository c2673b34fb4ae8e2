"""The explainer's HTTP routes: V1 `:explain`, V2 `/explain` and `/infer`, health and metadata; JSON, tensors or a page.

Decode, `Explaining.explain`, encode: five calls an explanation. Nothing of a request's headers comes back in an
answer. Sources: KServe docs, V1 protocol; open-inference-protocol, specification/protocol/inference_rest.md;
MLServer's alibi-explain runtime for the form of `/infer`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from explainers import answers, page
from explainers.access import Access, Bodies, ClientGone, while_connected
from explainers.explaining import Explaining, Wish
from explainers.explanation import Explanation
from servelens import __version__
from servelens.contract import oip, v1
from servelens.contract.errors import NotFound, PayloadError, ServeLensError
from servelens.contract.jsontext import parse_object
from servelens.contract.rows import request_table
from servelens.contract.table import Table
from servelens.contract.wire import (
    CONTENT_TYPE_BINARY,
    CONTENT_TYPE_JSON,
    INFERENCE_HEADER_CONTENT_LENGTH,
    parse_header_length,
)
from servelens.io import http

CLIENT_GONE: Final = 499  # as nginx logs it
EXTENSIONS: Final = ["binary_tensor_data"]
Endpoint = Callable[[Request], Awaitable[Response]]


class Parameters(BaseModel):
    """`parameters` of an explain request that are ours."""

    model_config = ConfigDict(extra="forbid", strict=True)
    method: str = ""
    deadline_ms: int | None = Field(None, ge=1, le=3_600_000)
    seed: int | None = Field(None, ge=0, lt=1 << 53)


class Routes:
    """The endpoints for one model."""

    def __init__(self, explaining: Explaining, model: str, access: Access) -> None:
        self._explaining, self._model, self._access = explaining, model, access
        self._bodies = Bodies(explaining.seconds)
        self._schema = explaining.artifact.schema

    async def explain_v1(self, request: Request) -> Response:
        """`{"instances": […], "parameters": {…}}` → `{"explanations": […]}`, or a page where HTML is accepted."""

        async def answer() -> Response:
            authorization = self._authorization(request)
            body = await self._bodies.read(request)
            table, wish = await asyncio.to_thread(self._read_v1, body, authorization)
            found = await while_connected(request, self._explaining.explain(table, wish))
            if _wants_page(request):
                return self._page(found)
            return http.json_response({"explanations": [answers.document(one) for one in found]})

        return await self._counted(answer)

    def _read_v1(self, body: bytes, authorization: str) -> tuple[Table, Wish]:
        document = parse_object(body)
        wish = _wish(document.get("parameters") or {}, authorization, strict=True)
        return request_table(self._schema, v1.request_of(document)), wish

    async def explain_v2(self, request: Request) -> Response:
        """Tensors in; `attributions`, `standard_errors` and their kin out, or those asked for, or a page."""
        return await self._counted(lambda: self._v2(request, ()))

    async def infer_v2(self, request: Request) -> Response:
        """As MLServer's explain runtimes: one BYTES tensor `explanation` of JSON, unless others are asked for."""
        return await self._counted(lambda: self._v2(request, (answers.JSON_TENSOR,)))

    async def _v2(self, request: Request, default: tuple[str, ...]) -> Response:
        authorization = self._authorization(request)
        length = request.headers.get(INFERENCE_HEADER_CONTENT_LENGTH)
        body = await self._bodies.read(request)
        asked, table = await asyncio.to_thread(self._read_v2, body, parse_header_length(length) if length else None)
        wish = _wish(asked.parameters, authorization, strict=False)
        found = await while_connected(request, self._explaining.explain(table, wish))
        if _wants_page(request):
            return self._page(found)
        tensors = answers.tensors(found, [output.name for output in asked.outputs] or default)
        reply = oip.InferResponse(tensors, self._model, __version__, asked.id, answers.parameters(found))
        encoded = oip.encode_response(reply, [tensor.name for tensor in tensors if asked.wants_binary(tensor.name)])
        if encoded.header_length is None:
            return Response(encoded.body, media_type=CONTENT_TYPE_JSON)
        headers = {INFERENCE_HEADER_CONTENT_LENGTH: str(encoded.header_length)}
        return Response(encoded.body, media_type=CONTENT_TYPE_BINARY, headers=headers)

    def _read_v2(self, body: bytes, length: int | None) -> tuple[oip.InferRequest, Table]:
        asked = oip.decode_request(body, length)
        answers.check([output.name for output in asked.outputs])
        table = request_table(self._schema, asked)
        if not table.rows:
            raise PayloadError("inputs", "have no row; send at least one", reason="wrong_shape")
        return asked, table

    def _authorization(self, request: Request) -> str:
        authorization = self._access.authorization(request)
        self._check_name(request)
        return authorization

    def _check_name(self, request: Request) -> None:
        """All that health and metadata ask for: a probe carries no token."""
        name = request.path_params["name"]
        if name != self._model:
            raise NotFound(f"model: no {name!r} here; this explains {self._model!r}")

    def _page(self, found: list[Explanation]) -> Response:
        return HTMLResponse(page.render(self._model, found), headers={"content-security-policy": page.POLICY})

    async def _counted(self, answer: Callable[[], Awaitable[Response]]) -> Response:
        try:
            return await answer()
        except ServeLensError as error:
            self._explaining.refused(error)
            raise
        except ClientGone:
            return Response(status_code=CLIENT_GONE)  # nobody reads it

    # -- health and metadata -------------------------------------------------------------------------------------

    async def models(self, _: Request) -> Response:
        """V1 list of models."""
        return http.json_response({"models": [self._model]})

    async def status(self, request: Request) -> Response:
        """V1 model status."""
        self._check_name(request)
        return http.json_response({"name": self._model, "ready": True})

    async def server(self, _: Request) -> Response:
        """V2 server metadata."""
        return http.json_response({"name": "servelens-explainer", "version": __version__, "extensions": EXTENSIONS})

    async def live(self, _: Request) -> Response:
        """V2 liveness."""
        return http.json_response({"live": True})

    async def ready(self, _: Request) -> Response:
        """V2 readiness."""
        return http.json_response({"ready": True})

    async def model_ready(self, request: Request) -> Response:
        """V2 readiness of the model."""
        self._check_name(request)
        return http.json_response({"name": self._model, "ready": True})

    async def metadata(self, request: Request) -> Response:
        """V2 model metadata: a tensor a feature in, the named tensors out."""
        self._check_name(request)
        inputs = [
            {"name": one.name, "datatype": "BYTES" if one.is_categorical else "FP64", "shape": [-1]}
            for one in self._schema.features
        ]
        outputs = [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape in answers.DECLARED]
        document = {"name": self._model, "versions": [__version__], "platform": "servelens"}
        return http.json_response(document | {"inputs": inputs, "outputs": outputs})


def create_app(
    explaining: Explaining, model: str, registry: CollectorRegistry, access: Access | None = None
) -> FastAPI:
    """The application. Its interactive docs would load scripts from elsewhere, so only `/openapi.json` is there."""
    routes = Routes(explaining, model, access or Access())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await explaining.close()

    app = FastAPI(
        lifespan=lifespan,
        title="ServeLens explainer",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        routes=[*http.health_routes(registry, lambda: None)],
        exception_handlers={
            ServeLensError: http.typed_error,
            HTTPException: _unknown_path,
            Exception: http.typed_error,
        },
    )
    table: list[tuple[str, str, Endpoint]] = [
        ("GET", "/v1/models", routes.models),
        ("GET", "/v1/models/{name}", routes.status),
        ("POST", "/v1/models/{name}:explain", routes.explain_v1),
        ("GET", "/v2", routes.server),
        ("GET", "/v2/health/live", routes.live),
        ("GET", "/v2/health/ready", routes.ready),
        ("GET", "/v2/models/{name}", routes.metadata),
        ("GET", "/v2/models/{name}/ready", routes.model_ready),
        ("POST", "/v2/models/{name}/explain", routes.explain_v2),
        ("POST", "/v2/models/{name}/infer", routes.infer_v2),
    ]
    for verb, path, endpoint in table:
        app.add_api_route(path, endpoint, methods=[verb], response_model=None, openapi_extra=_DESCRIBED.get(path))
    return app


_DESCRIBED: Final[Mapping[str, dict[str, Any]]] = {
    path: {"requestBody": {"required": True, "content": {CONTENT_TYPE_JSON: {"schema": schema}}}}
    for path, schema in {
        "/v1/models/{name}:explain": {
            "type": "object",
            "required": ["instances"],
            "properties": {"instances": {"type": "array"}, "parameters": Parameters.model_json_schema()},
        },
        "/v2/models/{name}/explain": {"type": "object", "required": ["inputs"]},
        "/v2/models/{name}/infer": {"type": "object", "required": ["inputs"]},
    }.items()
}


def _wish(parameters: object, authorization: str, *, strict: bool) -> Wish:
    """Our parameters; in V2 others may stand beside them (`binary_data_output`), in V1 they are typos."""
    if not isinstance(parameters, Mapping):
        raise PayloadError("parameters", "is not an object", reason="wrong_type")
    known = Parameters.model_fields
    given = parameters if strict else {key: value for key, value in parameters.items() if key in known}
    try:
        ours = Parameters.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(("parameters", *(str(part) for part in first["loc"])))
        raise PayloadError(where, f"{first['msg']}; known are {', '.join(known)}", reason="wrong_parameter") from None
    seconds = None if ours.deadline_ms is None else ours.deadline_ms / 1000
    return Wish(ours.method, seconds, ours.seed, authorization)


async def _unknown_path(request: Request, error: Exception) -> Response:
    """A path or method there is not, in the same form as every other error."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    return http.json_response({"error": f"{request.method} on this path is not served; see /openapi.json"}, status)


def _wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")
