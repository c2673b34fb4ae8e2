"""The second flow in the demo: flights explained over V1 and V2, and the values they ought to have.

The explainer asks through the tap like anyone else, signed as synthetic. `exact` works Shapley's formula out over all
coalitions, without a line of the explainer's own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import factorial
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from servelens.contract import oip, v1
from servelens.demo.flights import FEATURES, NUMERIC, Flights, model_yaml
from servelens.demo.model import LateArrival

Array = npt.NDArray[Any]

BACKGROUND: Final = 100  # rows of winter that absent features are drawn from
EXPLAINED: Final = 8  # flights
EXPLAINER_YAML: Final = """\
schemaversion: 1
background: background.parquet
methods:
  - {name: permutation_shap}
"""


@dataclass(frozen=True, slots=True)
class Explained:
    """What the explainer said of some flights, one dict (feature → value) each, and what is true.

    `tensors`: the same from V2; `seconds`: the slowest answer; `calls`: how often it says it asked the predictor.
    """

    attributions: Sequence[Mapping[str, float]]
    errors: Sequence[Mapping[str, float]]
    tensors: Sequence[Mapping[str, float]]
    truth: Sequence[Mapping[str, float]]
    seconds: float
    calls: int

    @property
    def within(self) -> float:
        """Share of attributions within two stated standard errors of the truth."""
        hits = [
            abs(said[name] - true[name]) <= 2 * error[name] + 1e-6  # answers travel as float32
            for said, error, true in zip(self.attributions, self.errors, self.truth, strict=True)
            for name in FEATURES
        ]
        return sum(hits) / len(hits)


def write_artifact(folder: Path, reference: Flights) -> Flights:
    """`explainer.yaml`, `model.yaml` and background rows; those rows."""
    folder.mkdir(parents=True, exist_ok=True)
    background = reference.take(np.arange(BACKGROUND))
    (folder / "explainer.yaml").write_text(EXPLAINER_YAML)
    (folder / "model.yaml").write_text(model_yaml())
    pq.write_table(pa.table(dict(background.columns)), folder / "background.parquet")
    return background


def explain(address: str, flights: Flights, background: Flights, model: LateArrival, page: Path) -> Explained:
    """Ask about each flight over V1, then about all over V2; keep the page of the first."""
    said, errors, seconds = [], [], 0.0
    with httpx.Client(base_url=f"http://{address}", timeout=30) as client:
        for body in (request_v1(flights.take(np.array([at]))) for at in range(len(flights))):
            answer = client.post("/v1/models/flights:explain", content=body)
            seconds = max(seconds, answer.elapsed.total_seconds())
            found = answer.raise_for_status().json()["explanations"][0]["attributions"]["score"]
            said.append({one["feature"]: one["attribution"] for one in found})
            errors.append({one["feature"]: one["standard_error"] for one in found})
        accept = {"accept": "text/html"}
        body = request_v1(flights.take(np.array([0])))
        page.write_text(client.post("/v1/models/flights:explain", content=body, headers=accept).raise_for_status().text)
        answer = client.post("/v2/models/flights/explain", content=request_v2(flights))
        seconds = max(seconds, answer.elapsed.total_seconds())
        tensors = {one.name: one.data for one in oip.decode_response(answer.raise_for_status().content).outputs}
        calls = _calls(client.get("/metrics").text)
    named = [dict(zip(FEATURES, row, strict=True)) for row in tensors["attributions"][:, 0, :].tolist()]
    true = [exact(model, flights, at, background) for at in range(len(flights))]
    return Explained(said, errors, named, true, seconds, calls)


def curl(address: str) -> str:
    """A command to try it by hand."""
    row = '[45.0, 120.0, 733.0, 18.0, "UA", "EWR"]'
    return f"""curl -s http://{address}/v1/models/flights:explain -d '{{"instances": [{row}]}}'"""


def request_v1(flights: Flights) -> bytes:
    """A V1 request body."""
    rows = list(map(list, zip(*(flights.columns[name].tolist() for name in FEATURES), strict=True)))
    return v1.encode_request(v1.PredictRequest(rows))


def request_v2(flights: Flights) -> bytes:
    """A V2 request body, JSON, a tensor a feature."""
    columns = {
        name: flights.columns[name].astype(np.float64) if name in NUMERIC else flights.columns[name]
        for name in FEATURES
    }
    tensors = tuple(oip.Tensor.of(name, column) for name, column in columns.items())
    return oip.encode_request(oip.InferRequest(inputs=tensors)).body


def exact(model: LateArrival, flights: Flights, at: int, background: Flights) -> dict[str, float]:
    """Shapley's formula for one flight: every coalition's mean over the background rows."""
    n, features = len(background), len(FEATURES)
    coalitions = [set(some) for size in range(features + 1) for some in combinations(range(features), size)]
    columns = {
        name: np.concatenate(
            [
                np.full(n, flights.columns[name][at], dtype=flights.columns[name].dtype)
                if index in coalition
                else background.columns[name]
                for coalition in coalitions
            ]
        )
        for index, name in enumerate(FEATURES)
    }
    means = model.predict(columns)[:, 1].reshape(len(coalitions), n).mean(axis=1)
    value = {frozenset(coalition): mean for coalition, mean in zip(coalitions, means.tolist(), strict=True)}
    whole = factorial(features)
    return {
        name: sum(
            factorial(len(s))
            * factorial(features - len(s) - 1)
            / whole
            * (value[frozenset(s | {index})] - value[frozenset(s)])
            for s in coalitions
            if index not in s
        )
        for index, name in enumerate(FEATURES)
    }


def _calls(exposition: str) -> int:
    prefix = "servelens_explanation_predictor_calls_total{"
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in exposition.splitlines() if line.startswith(prefix))
