"""A small model, rows of it, and exchanges of it as the logger would write them."""

from collections.abc import Sequence

import numpy as np
import orjson

from servelens.contract import records
from servelens.contract.events import Exchange, Half, LogMode, Record
from servelens.contract.identity import ModelIdentity, new_exchange_id
from servelens.contract.table import Table

IDENTITY = ModelIdentity("shop", "risk", "predictor", "risk", "")
MODEL = """
schemaversion: 1
identity: {namespace: shop, inferenceservice: risk, component: predictor, modelname: risk}
features:
  - {name: age, type: numeric}
  - {name: income, type: numeric}
  - {name: city, type: categorical}
outputs: {tensor: probabilities, kind: probabilities, classes: [good, bad]}
"""
CITIES = ("Bern", "Graz", "Metz")


def rows_of(rng: np.random.Generator, count: int, shift: float = 0.0) -> tuple[list[list[object]], list[list[float]]]:
    """Feature rows and probabilities; `shift` moves `age`, in standard deviations."""
    age = rng.normal(40 + 10 * shift, 10, count)
    income = rng.lognormal(3, 0.5, count)
    city = rng.choice(CITIES, count, p=(0.5, 0.3, 0.2))
    bad = 1 / (1 + np.exp(-(income - 20) / 10))
    features = [[float(a), float(i), str(c)] for a, i, c in zip(age, income, city, strict=True)]
    return features, [[1 - float(p), float(p)] for p in bad]


def table_of(features: Sequence[Sequence[object]], answers: Sequence[Sequence[float]]) -> Table:
    age, income, city = zip(*features, strict=True)
    columns = {"age": np.array(age, np.float64), "income": np.array(income, np.float64), "city": np.array(city, object)}
    return Table.of({**columns, "score": np.array([answer[1] for answer in answers], np.float64)})


def make_record(
    rng: np.random.Generator,
    rows: int = 4,
    at_us: int = 1_800_000_000_000_000,
    seq: int = 1,
    shift: float = 0.0,
    tapid: str = "tap-1",
    mode: LogMode = "exchange",
    identity: ModelIdentity = IDENTITY,
) -> Record:
    """The record of one exchange."""
    features, answers = rows_of(rng, rows, shift)
    request, response = orjson.dumps({"instances": features}), orjson.dumps({"predictions": answers})
    exchange = Exchange(
        exchangeid=new_exchange_id(),
        arrived_us=at_us,
        identity=identity,
        method="POST",
        path="/v1/models/risk:predict",
        status=200,
        protocol="http/1.1",
        duration_us=1500,
        tapid=tapid,
        request=Half(request, len(request), content_type="application/json"),
        response=Half(response, len(response), content_type="application/json"),
    )
    return records.encode(exchange, mode, seq)[0]
