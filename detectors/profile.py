"""The profile of a model: what its columns looked like in the reference, as counts in frozen bins, without raw rows.

The value and how it is built; its file is `profile_file`'s. Every pane and verdict names the digest. Called by
`servelens profile build` and, as a value, by all of `detectors`.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.columns import FEWEST, ColumnReference, Fitted, fit_column, settle
from detectors.design_effect import shuffles
from detectors.seasons import COUNTS
from servelens.contract.errors import ConfigError
from servelens.contract.identity import ModelIdentity
from servelens.contract.schema import SCHEMA_VERSION, Feature, ModelSchema, Outputs
from servelens.contract.table import Table

FORMAT: Final = 2  # of the canonical content; raised when a reader of this version would misread it
GAMMA: Final = 0.01  # chance that any column of the reference lies further from the truth than allowed for
FEWEST_ROWS: Final = FEWEST
ENOUGH_ROWS: Final = 5000
MOST_SERIES: Final = 50  # columns a profile shows in /metrics unless told otherwise
STRONG: Final = 10.0  # design effect
UNDIGESTED: Final = "time"  # the one key of the provenance that a repeated build may change


@dataclass(frozen=True, slots=True)
class Segment:
    """The rows a profile is about: those whose `column` has this `value`."""

    column: str
    value: str

    def __str__(self) -> str:
        return f"{self.column}={self.value}"

    def rows(self, table: Table) -> NDArray[np.bool_]:
        """(rows,) which of a table's rows belong to it; ConfigError for a column or value that cannot be."""
        values = table.columns.get(self.column)
        if values is None:
            raise ConfigError("--segment", f"there is no column {self.column}", "Name a feature of model.yaml.")
        if values.dtype == object:
            wanted: str | float = self.value
        else:
            try:
                wanted = float(self.value)
            except ValueError as error:
                remedy = "Write COLUMN=NUMBER for a numeric column."
                raise ConfigError("--segment", f"{self.value!r} is no number", remedy) from error
        chosen: NDArray[np.bool_] = np.asarray(values == wanted, bool)
        return chosen


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """`columns`: those of the schema's features, then its prediction columns as far as the reference had them.

    `provenance`: where the reference came from, text by name; `time` is not part of the digest. `season`: a name of
    `seasons.COUNTS`, empty for a reference without. `segment`: the rows it is about, None for all. `series`: the
    columns that `/metrics` shows. Counts of all columns lie behind one another in one vector of `width`, column i at
    `slices[i]`, `position[name]` being i.
    """

    model: ModelSchema
    columns: tuple[ColumnReference, ...]
    rows: int
    provenance: Mapping[str, str]
    season: str = ""
    segment: Segment | None = None
    series: tuple[str, ...] = ()
    digest: str = field(init=False)
    slices: tuple[slice, ...] = field(init=False, repr=False)
    starts: NDArray[np.intp] = field(init=False, repr=False)
    position: Mapping[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        ends = np.cumsum([0, *(column.bins.size for column in self.columns)]).tolist()
        object.__setattr__(self, "slices", tuple(slice(*ends) for ends in pairwise(ends)))
        object.__setattr__(self, "starts", np.array(ends[:-1], np.intp))
        object.__setattr__(self, "position", {column.name: at for at, column in enumerate(self.columns)})
        object.__setattr__(self, "digest", canonical_digest(self.to_mapping()))

    @property
    def identity(self) -> ModelIdentity:
        """The model the schema names."""
        return self.model.identity

    @property
    def schema(self) -> dict[str, Any]:
        """The model's schema in the form of model.yaml, as JSON; `parse_model` reads it."""
        return _schema_mapping(self.model)

    @property
    def width(self) -> int:
        """Number of counters of all columns."""
        return self.slices[-1].stop if self.slices else 0

    def against(self, seasons: Mapping[int, int]) -> tuple[ColumnReference, ...]:
        """The references of a window that holds so many rows of each season."""
        return tuple(column.mixed(seasons) for column in self.columns) if self.season else self.columns

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the operator should know before relying on it, one sentence each."""
        return tuple(_warnings(self))

    def to_mapping(self) -> dict[str, Any]:
        """The canonical content: what the digest is taken over, and the provenance's time."""
        return {
            "format": FORMAT,
            "schema": self.schema,
            "rows": self.rows,
            "provenance": dict(self.provenance),
            "season": self.season,
            "segment": None if self.segment is None else [self.segment.column, self.segment.value],
            "series": list(self.series),
            "columns": [column.to_mapping() for column in self.columns],
        }


@dataclass(frozen=True, slots=True)
class Choices:
    """How a profile is built, beside its rows.

    `season`: a name of `seasons.COUNTS` or empty; `season_of_row`: (rows,) each row's season then. `series`: the
    columns `/metrics` shows, None for all up to `MOST_SERIES`, predictions first. `seed`: of the shuffles that the
    order of the rows is compared with.
    """

    season: str = ""
    season_of_row: NDArray[np.int64] | None = None
    segment: Segment | None = None
    series: Sequence[str] | None = None
    seed: int = 0


def build_profile(
    table: Table,
    schema: ModelSchema,
    provenance: Mapping[str, str],
    choices: Choices | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Profile:
    """The profile of a reference whose rows are in order of time, as the design effect takes them.

    `progress(done, total)` is told after each column. Raises ConfigError for fewer than 100 rows, a feature the table
    lacks or a choice that does not fit.
    """
    choices = choices or Choices()
    if choices.segment is not None and choices.segment.column not in schema.names:
        problem = f"there is no column {choices.segment.column}"
        raise ConfigError("--segment", problem, "Name a feature of model.yaml.")
    table, of_season = _chosen_rows(table, choices)
    if table.rows < FEWEST_ROWS:
        raise ConfigError(
            "reference", f"it has {table.rows} rows", f"Give at least {FEWEST_ROWS}, better {ENOUGH_ROWS} or more"
        )
    wanted = _wanted(table, schema)
    orders = shuffles(table.rows, choices.seed, of_season, COUNTS.get(choices.season, 1))
    fitted: list[Fitted] = []
    for family, one in wanted:
        values = table.columns[one.name]
        fitted.append(fit_column(one.name, family, one.type, values, gamma=GAMMA / len(wanted), orders=orders))
        if progress:
            progress(len(fitted), len(wanted))
    columns = settle(fitted)
    made = {**provenance, "seed": str(choices.seed)}
    series = _series(columns, choices.series)
    return Profile(schema, columns, table.rows, made, choices.season, choices.segment, series)


def _chosen_rows(table: Table, choices: Choices) -> tuple[Table, NDArray[np.int64] | None]:
    """The rows of the segment, and their seasons."""
    of_season = choices.season_of_row
    if bool(choices.season) != (of_season is not None) or (choices.season and choices.season not in COUNTS):
        raise ConfigError(
            "--season", f"{choices.season!r} without times or unknown", f"Use one of {', '.join(COUNTS)}."
        )
    if choices.segment is None:
        return table, of_season
    mask = choices.segment.rows(table)
    kept = Table({name: values[mask] for name, values in table.columns.items()}, int(mask.sum()))
    return kept, None if of_season is None else of_season[mask]


def _wanted(table: Table, schema: ModelSchema) -> list[tuple[str, Feature]]:
    """(family, column) of every column the profile will have."""
    present = [column for column in schema.predictions if column.name in table.columns]
    wanted = [("feature", one) for one in schema.features] + [("prediction", one) for one in present]
    missing = sorted(one.name for _, one in wanted if one.name not in table.columns)
    if missing:
        raise ConfigError("reference", f"it lacks {', '.join(missing)}", "Add the columns, or correct model.yaml")
    return wanted


def _series(columns: Sequence[ColumnReference], named: Sequence[str] | None) -> tuple[str, ...]:
    known = [column.name for column in columns]
    if named is None:
        ranked = sorted(columns, key=lambda column: column.family != "prediction")
        kept = {column.name for column in ranked[:MOST_SERIES]}
        return tuple(name for name in known if name in kept)
    for name in named:
        if name not in known:
            raise ConfigError("--series", f"there is no column {name}", f"Name some of {', '.join(known)}.")
    return tuple(name for name in known if name in set(named))


def canonical_digest(content: Mapping[str, Any]) -> str:
    """SHA-256, hex, over sorted JSON without white space, floats in their shortest form (Python's repr).

    So it depends neither on the platform nor on the versions of numpy and pyarrow.
    """
    kept = {name: value for name, value in content["provenance"].items() if name != UNDIGESTED}
    text = json.dumps({**content, "provenance": kept}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _schema_mapping(model: ModelSchema) -> dict[str, Any]:
    outputs = {"kind": model.outputs.kind, "tensor": model.outputs.tensor}
    classes = {"classes": list(model.outputs.classes)} if model.outputs.classes else {}
    return {
        "schemaversion": SCHEMA_VERSION,
        "identity": model.identity.labels(),
        "features": [_feature_mapping(feature) for feature in model.features],
        "outputs": {**outputs, **classes},
    }


def _feature_mapping(feature: Feature) -> dict[str, Any]:
    categories = {"categories": list(feature.categories)} if feature.categories else {}
    return {"name": feature.name, "type": feature.type, **categories}


def model_of(schema: Mapping[str, Any]) -> ModelSchema:
    """The inverse of `_schema_mapping`; not through YAML, which refuses some characters JSON has."""
    outputs = schema["outputs"]
    return ModelSchema(
        ModelIdentity.from_mapping(schema["identity"]),
        tuple(Feature(one["name"], one["type"], tuple(one.get("categories", ()))) for one in schema["features"]),
        Outputs(outputs["kind"], outputs["tensor"], tuple(outputs.get("classes", ()))),
    )


def _warnings(profile: Profile) -> list[str]:
    found = []
    if profile.rows < ENOUGH_ROWS:
        found.append(f"The reference has {profile.rows} rows; below {ENOUGH_ROWS} only large differences can be seen.")
    absent = [one.name for one in profile.model.predictions if one.name not in profile.position]
    if absent:
        found.append(f"The reference has no {', '.join(absent)}: drift of predictions is not watched.")
    for column in profile.columns:
        if column.nulls == column.rows:
            found.append(f"Column {column.name} holds nothing but nulls.")
        elif column.blind:
            found.append(f"Column {column.name} is too correlated in time: its rows cannot say what is usual.")
        elif column.deff >= STRONG:
            found.append(
                f"Column {column.name} is strongly correlated in time: its rows count as 1/{column.deff:.0f} each."
            )
    return found
