"""A small model of numbers and a category, and an explainer of it behind a real HTTP server."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from model_server import Function, Model, serving

from explainers.service import Explainer
from explainers.settings import ExplainerSettings
from servelens.contract.schema import ModelSchema
from servelens.contract.table import Table

MODEL = """
schemaversion: 1
identity: {namespace: shop, inferenceservice: risk, modelname: m}
features:
  - {name: age, type: numeric}
  - {name: income, type: numeric}
  - {name: visits, type: integer}
  - {name: member, type: boolean}
  - {name: city, type: categorical}
outputs: {tensor: risk, kind: probabilities, classes: [good, bad]}
"""
CITIES = ("Bern", "Graz", "Metz")
EFFECT = {"Bern": 0.0, "Graz": 1.0, "Metz": -1.0}


def risk(table: Table) -> Any:
    """(rows, 2): probabilities, with an interaction of age and city."""
    columns = table.columns
    city = np.array([EFFECT.get(one, 3.0) for one in columns["city"]])
    score = columns["age"] / 20 - columns["income"] / 30 + 0.3 * columns["visits"] - columns["member"]
    bad = 1 / (1 + np.exp(-(score + city * columns["age"] / 40)))
    return np.column_stack([1 - bad, bad])


def background(rows: int = 40, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {
        "age": random.normal(40, 10, rows),
        "income": random.lognormal(3, 0.5, rows),
        "visits": random.poisson(2, rows).astype(np.int64),
        "member": random.random(rows) < 0.4,
        "city": random.choice(CITIES, rows).tolist(),
    }


ArtifactOf = Callable[..., Path]


def write_artifact(
    folder: Path, explainer: str = "", model: str = MODEL, rows: Mapping[str, Any] | None = None
) -> Path:
    """An artifact folder; `explainer` is added to explainer.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "explainer.yaml").write_text("schemaversion: 1\nbackground: background.parquet\n" + explainer)
    (folder / "model.yaml").write_text(model)
    pq.write_table(pa.table(dict(rows or background())), folder / "background.parquet")
    return folder


@dataclass
class House:
    """A model server and the explainer of it, both real."""

    model: Model
    explainer: Explainer
    client: httpx.Client

    def metrics(self) -> str:
        return self.client.get("/metrics").text

    def sample(self, name: str, **labels: str) -> float:
        """The sum of the samples of a metric with these labels."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in self.metrics().splitlines()
            if line.startswith((name + "{", name + " ")) and all(one in line for one in wanted)
        )


@contextmanager
def house(folder: Path, schema: ModelSchema, function: Function = risk, **settings: Any) -> Iterator[House]:
    """An explainer on a free port; `settings` are ExplainerSettings, `model_*` those of the model server."""
    about = {key.removeprefix("model_"): settings.pop(key) for key in list(settings) if key.startswith("model_")}
    with serving(schema, function, **about) as model:
        told = ExplainerSettings("m", model.address, http_port=0, host="127.0.0.1", artifacts=folder)
        explainer = Explainer(replace(told, **settings))
        address = explainer.open()
        try:
            with httpx.Client(base_url=f"http://{address}", timeout=30) as client:
                yield House(model, explainer, client)
        finally:
            explainer._server.stop(1)


ROW: list[Any] = [52.0, 18.5, 3, True, "Graz"]
