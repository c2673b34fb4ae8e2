"""The demo's clients: real requests over V1 and V2, JSON and binary, and a ledger of what each of them saw."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import numpy as np

from servelens.contract import oip, v1
from servelens.contract.wire import INFERENCE_HEADER_CONTENT_LENGTH
from servelens.demo.flights import CATEGORICAL, FEATURES, NUMERIC, TENSOR, Flights

ROWS: Final = 16  # of a request
RATE: Final = 45.0  # requests a second


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, ready to send."""

    path: str
    body: bytes
    headers: dict[str, str]


def _v1(flights: Flights) -> Ask:
    rows = list(map(list, zip(*(flights.columns[name].tolist() for name in FEATURES), strict=True)))
    body = v1.encode_request(v1.PredictRequest(rows))
    return Ask("/v1/models/flights:predict", body, {"content-type": "application/json"})


def _v2(flights: Flights, binary: bool) -> Ask:
    tensors = [oip.Tensor.of(name, np.ascontiguousarray(flights.columns[name], np.float64)) for name in NUMERIC]
    tensors += [oip.Tensor.of(name, _encoded(flights.columns[name]), "BYTES") for name in CATEGORICAL]
    outputs = (oip.RequestedOutput(TENSOR, {"binary_data": binary}),)
    request = oip.InferRequest(inputs=tuple(tensors), outputs=outputs)
    encoded = oip.encode_request(request, binary=list(FEATURES) if binary else ())
    headers = {"content-type": "application/octet-stream" if binary else "application/json"}
    if encoded.header_length is not None:
        headers[INFERENCE_HEADER_CONTENT_LENGTH] = str(encoded.header_length)
    return Ask("/v2/models/flights/infer", encoded.body, headers)


def _encoded(values: Any) -> Any:
    return np.array([value.encode() for value in values], dtype=object)


FORMS: Final[tuple[Callable[[Flights], Ask], ...]] = (
    _v1,
    lambda flights: _v2(flights, binary=False),
    lambda flights: _v2(flights, binary=True),
)


@dataclass(frozen=True, slots=True)
class Failure:
    """A request without a good answer: when it began and ended (Unix seconds), and what came instead."""

    began: float
    ended: float
    what: str


@dataclass(slots=True)
class Ledger:
    """What the clients saw. `statuses` counts answers; `failures` are requests that got none, or not a 200."""

    sent: int = 0
    rows: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)


def asks(flights: Flights) -> Iterator[Ask]:
    """Requests of 16 flights each, the three forms in turn, until the flights are used up."""
    forms = itertools.cycle(FORMS)
    for start in range(0, len(flights) - ROWS + 1, ROWS):
        yield next(forms)(flights.take(np.arange(start, start + ROWS)))


async def _one(client: httpx.AsyncClient, ask: Ask, ledger: Ledger) -> None:
    began = time.time()
    ledger.sent += 1
    try:
        answer = await client.post(ask.path, content=ask.body, headers=ask.headers)
    except httpx.HTTPError as error:
        ledger.failures.append(Failure(began, time.time(), type(error).__name__))
        return
    ledger.statuses[answer.status_code] += 1
    ledger.latencies.append(time.time() - began)
    if answer.status_code == 200:
        ledger.rows += ROWS
    else:
        ledger.failures.append(Failure(began, time.time(), str(answer.status_code)))


async def drive(address: str, flights: Flights, ledger: Ledger, rows: int, rate: float = RATE) -> None:
    """Send at a steady rate, whether the answers are late or not, until `rows` have been answered or none are left.

    An outage thus costs time, not windows: what failed is made up for by later flights. Returns when all have ended.
    """
    goal = ledger.rows + rows
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=16)
    async with (
        httpx.AsyncClient(base_url=f"http://{address}", timeout=30, limits=limits) as client,
        asyncio.TaskGroup() as group,
    ):
        started = time.monotonic()
        for number, ask in enumerate(asks(flights)):
            await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
            if ledger.rows >= goal:
                break
            group.create_task(_one(client, ask, ledger))
