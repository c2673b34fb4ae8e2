"""A small model server for the demo: V1 and V2 of one model, JSON and binary. `python -m servelens.demo.predictor`.

It plays KServe's predictor, so it knows nothing of ServeLens but the codecs; the logger stands before it.
"""

import argparse
import logging
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from prometheus_client import CollectorRegistry
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from threadpoolctl import threadpool_limits

from servelens.contract import oip, rows, v1
from servelens.contract.errors import TooLarge
from servelens.contract.schema import parse_model
from servelens.contract.wire import INFERENCE_HEADER_CONTENT_LENGTH as HEADER_LENGTH
from servelens.demo.flights import FEATURES, NUMERIC, TENSOR, load, model_yaml
from servelens.demo.model import LateArrival
from servelens.io import http, logs
from servelens.io.processes import stop_on_signals

log = logging.getLogger(__name__)

MAX_BODY: Final = 8 << 20
NAME: Final = "flights"


class Predictor:
    """The routes of one loaded model."""

    def __init__(self, model: LateArrival) -> None:
        self.model = model
        self.schema = parse_model(model_yaml())

    async def _body(self, request: Request) -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                raise TooLarge("body", f"over {MAX_BODY} bytes; send fewer rows")
        return bytes(body)

    async def predict(self, request: Request) -> Response:
        """V1 `:predict`."""
        asked = v1.decode_request(await self._body(request))
        table = rows.request_table(self.schema, asked)
        answer = await run_in_threadpool(self.model.predict, table.columns)
        return Response(v1.encode_response(v1.PredictResponse(answer.tolist())), media_type="application/json")

    async def infer(self, request: Request) -> Response:
        """V2 `/infer`; the answer is binary where the request asks for that."""
        length = request.headers.get(HEADER_LENGTH)
        asked = oip.decode_request(await self._body(request), int(length) if length and length.isdigit() else None)
        table = rows.request_table(self.schema, asked)
        answer = await run_in_threadpool(self.model.predict, table.columns)
        tensor = oip.Tensor.of(TENSOR, np.ascontiguousarray(answer, dtype=np.float32))
        reply = oip.InferResponse(model_name=NAME, id=asked.id, outputs=(tensor,))
        encoded = oip.encode_response(reply, binary=[TENSOR] if asked.wants_binary(TENSOR) else ())
        if encoded.header_length is None:
            return Response(encoded.body, media_type="application/json")
        headers = {HEADER_LENGTH: str(encoded.header_length)}
        return Response(encoded.body, media_type="application/octet-stream", headers=headers)

    async def metadata(self, _: Request) -> Response:
        """V2 model metadata."""
        inputs: list[dict[str, Any]] = [
            {"name": name, "datatype": "FP64" if name in NUMERIC else "BYTES", "shape": [-1]} for name in FEATURES
        ]
        outputs = [{"name": TENSOR, "datatype": "FP32", "shape": [-1, 2]}]
        return http.json_response(
            {"name": NAME, "versions": ["1"], "platform": "sklearn", "inputs": inputs, "outputs": outputs}
        )

    async def server(self, _: Request) -> Response:
        """V2 server metadata: it takes and answers binary tensors."""
        return http.json_response({"name": "demo", "version": "1", "extensions": ["binary_tensor_data"]})

    async def alive(self, _: Request) -> Response:
        """V2 health."""
        return http.json_response({"live": True, "ready": True})

    async def status(self, _: Request) -> Response:
        """V1 model status."""
        return http.json_response({"name": NAME, "ready": True})

    def routes(self) -> list[Route]:
        """What KServe's Python server answers, for one model."""
        return [
            Route(f"/v1/models/{NAME}", self.status),
            Route(f"/v1/models/{NAME}:predict", self.predict, methods=["POST"]),
            Route("/v2", self.server),
            Route("/v2/health/live", self.alive),
            Route("/v2/health/ready", self.alive),
            Route(f"/v2/models/{NAME}", self.metadata),
            Route(f"/v2/models/{NAME}/ready", self.alive),
            Route(f"/v2/models/{NAME}/infer", self.infer, methods=["POST"]),
        ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, listen, serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="servelens.demo.predictor")
    parser.add_argument("--listen", default="127.0.0.1:8080")
    parser.add_argument("--seed", type=int, default=0)
    parsed = parser.parse_args(arguments)
    logs.configure("predictor")
    threadpool_limits(1)  # the trees are small: threads that spin for each other cost more than they bring
    started = time.monotonic()
    predictor = Predictor(LateArrival(load(parsed.seed).train, parsed.seed))
    log.info("fitted", extra={"seconds": round(time.monotonic() - started, 2)})
    bound = http.bind(parsed.listen)
    http.announce(listening=http.address_of(bound))
    server = http.Server(http.app(CollectorRegistry(), lambda: None, predictor.routes()), bound)
    stop = threading.Event()
    stop_on_signals(stop)
    server.start()
    stop.wait()
    server.stop()


if __name__ == "__main__":
    main()
