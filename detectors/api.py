"""The detector's page and API, behind a token: `/`, `/page/…` and `/api/v1/…`; `/metrics` and health stay open.

Apart from `view`, which says what is shown. A browser shows the token as the password of HTTP's basic scheme, anything
else as a bearer token. Called by `service`.
"""

import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from detectors import drawing, view
from detectors.evaluation import Evaluation
from detectors.evaluator import Evaluator
from detectors.reporting import POLICY as REPORT_POLICY
from detectors.reporting import Job, Reports
from detectors.verdict_schema import VERDICT_SCHEMA
from servelens.contract.errors import BrokerError, Forbidden, NotFound
from servelens.io.http import json_response

Look = Callable[[Evaluation, Request], Any]
_REALM: Final = 'Basic realm="ServeLens"'  # with Bearer beside it, Chromium does not ask


class Api:
    """The routes over one evaluator; `token` empty: everything is refused, and the answer says why."""

    def __init__(self, evaluator: Evaluator | None, token: str, reports: Reports) -> None:
        self._evaluator, self._token, self._reports = evaluator, token.encode(), reports

    def routes(self) -> list[Route]:
        """All of them."""
        found = [Route(path, self._guarded(self._looking(look, draw))) for path, (look, draw) in _PAGES.items()]
        found += [Route(path, self._guarded(self._looking(look, json_response))) for path, look in _ANSWERS.items()]
        return [*found, Route("/page/{key}/{last:int}/report", self._guarded(self._report))]

    def _looking(self, look: Look, form: Callable[[Any], Response]) -> Callable[[Request], Awaitable[Response]]:
        def answered(request: Request) -> Response:
            return form(self._look(look, request))

        async def answer(request: Request) -> Response:
            return await run_in_threadpool(answered, request)

        return answer

    def _look(self, look: Look, request: Request) -> Any:
        """What a view shows of the evaluation, which stands still meanwhile; it is drawn when that goes on."""
        evaluator = self._evaluator
        if evaluator is None:
            raise NotFound("verdicts: this process counts rows; ask an evaluator (--role evaluator or all)")
        if evaluator.evaluation is None:
            raise BrokerError("verdicts: the evaluator has not reached Kafka yet; ask again in a moment")
        with evaluator.lock:
            return look(evaluator.evaluation, request)

    async def _report(self, request: Request) -> Response:
        def look(state: Evaluation, asked: Request) -> Job:
            return self._reports.job(state, *_window(asked))

        def made() -> Response:
            page = self._reports.make(self._look(look, request))
            return HTMLResponse(page, headers={"content-security-policy": REPORT_POLICY, "cache-control": "no-store"})

        return await run_in_threadpool(made)

    def _guarded(self, answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            if not self._token:
                raise Forbidden("token: page and API are shut until the detector is started with --token-file")
            if not hmac.compare_digest(_shown(request.headers.get("authorization", "")), self._token):
                problem = "authorization: the token is missing or not the right one"
                return Response(problem + "\n", 401, {"www-authenticate": _REALM}, "text/plain")
            return await answer(request)

        return guarded


def _window(request: Request) -> tuple[str, int]:
    return request.path_params["key"], request.path_params["last"]


def _page(draw: Callable[[Any], str]) -> Callable[[Any], Response]:
    def form(seen: Any) -> Response:
        return HTMLResponse(
            draw(seen), headers={"content-security-policy": drawing.POLICY, "cache-control": "no-store"}
        )

    return form


_MODEL: Final[Look] = lambda state, asked: view.model(state, asked.path_params["key"])  # noqa: E731 -- a row's first half
_WINDOW: Final[Look] = lambda state, asked: view.window(state, *_window(asked))  # noqa: E731 -- the same
_PAGES: Final[Mapping[str, tuple[Look, Callable[[Any], Response]]]] = {
    "/": (lambda state, _: view.overview(state), _page(drawing.models)),
    "/page/{key}": (_MODEL, _page(drawing.model)),
    "/page/{key}/{last:int}": (_WINDOW, _page(drawing.window)),
}
_ANSWERS: Final[Mapping[str, Look]] = {
    "/api/v1/verdict-schema": lambda _state, _asked: VERDICT_SCHEMA,
    "/api/v1/models": lambda state, _: {"models": view.models(state)},
    "/api/v1/models/{key}": _MODEL,
    "/api/v1/models/{key}/windows/{last:int}": _WINDOW,
}


def _shown(authorization: str) -> bytes:
    """The token in an authorization header, a bearer's or the basic scheme's password; empty for anything else."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode(errors="replace")
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(value, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""
