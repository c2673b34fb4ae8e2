"""The profile of a model: what its columns looked like in the reference, as counts in frozen bins, without raw rows.

The value, how it is built, and its one file, a zip of `profile.json` and `columns.parquet`. What is read is distrusted:
sizes are checked before anything is unpacked, nothing is compressed inside the Parquet member, and the digest is
computed again. Every pane and verdict names the digest. Called by `servelens profile build` and, as a value, by all of
`detectors`.
"""

import hashlib
import io
import json
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from detectors.columns import ColumnReference, fit_column
from detectors.design_effect import shuffles
from servelens.contract.errors import ConfigError, StateError
from servelens.contract.identity import ModelIdentity
from servelens.contract.schema import SCHEMA_VERSION, Feature, ModelSchema, Outputs
from servelens.contract.table import Table

FORMAT: Final = 1  # of the canonical content; raised when a reader of this version would misread it
GAMMA: Final = 0.01  # chance that any column of the reference lies further from the truth than allowed for
FEWEST_ROWS: Final = 100
ENOUGH_ROWS: Final = 5000
STRONG: Final = 10.0  # design effect
FACTS, BINS = "profile.json", "columns.parquet"
LARGEST: Final = 64 << 20  # bytes of a member unpacked
MOST_BINS: Final = 2_000_000
REMEDY: Final = "Build it again with `servelens profile build`"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the zip format's zero, so that equal profiles are equal files
# `value`: upper edge of a range or a number level; `level`: a text level; both null for open, unseen and null bins.
_SCHEMA: Final = pa.schema(
    [("column", pa.string()), ("value", pa.float64()), ("level", pa.string()), ("count", pa.int64())]
)
# What the zip, JSON and Parquet readers raise on bytes that are not theirs (RuntimeError: an encrypted member).
_DAMAGE: Final = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError),
    *(pa.ArrowException, zipfile.BadZipFile, zlib.error),
)
_VALUES: Final = {"quantiles": ("edges", "value"), "numbers": ("levels", "value"), "texts": ("levels", "level")}
UNDIGESTED: Final = "time"  # the one key of the provenance that a repeated build may change


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """`columns`: those of the schema's features, then its prediction columns as far as the reference had them.

    `provenance`: where the reference came from, text by name; `time` is not part of the digest. Counts of all columns
    lie behind one another in one vector of `width`, column i at `slices[i]`, `position[name]` being i.
    """

    model: ModelSchema
    columns: tuple[ColumnReference, ...]
    rows: int
    provenance: Mapping[str, str]
    digest: str = field(init=False)
    slices: tuple[slice, ...] = field(init=False, repr=False)
    position: Mapping[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        ends = np.cumsum([0, *(column.bins.size for column in self.columns)]).tolist()
        object.__setattr__(self, "slices", tuple(slice(*ends) for ends in pairwise(ends)))
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
            "columns": [column.to_mapping() for column in self.columns],
        }


def build_profile(
    table: Table,
    schema: ModelSchema,
    provenance: Mapping[str, str],
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Profile:
    """The profile of a reference whose rows are in order of time, as the design effect takes them.

    `seed`: of the shuffles that order is compared with. `progress(done, total)` is told after each column. Raises
    ConfigError for fewer than 100 rows or a feature the table lacks.
    """
    if table.rows < FEWEST_ROWS:
        raise ConfigError(
            "reference", f"it has {table.rows} rows", f"Give at least {FEWEST_ROWS}, better {ENOUGH_ROWS} or more"
        )
    present = [column for column in schema.predictions if column.name in table.columns]
    chosen = [("feature", one) for one in schema.features] + [("prediction", one) for one in present]
    missing = sorted(one.name for _, one in chosen if one.name not in table.columns)
    if missing:
        raise ConfigError("reference", f"it lacks {', '.join(missing)}", "Add the columns, or correct model.yaml")
    orders, columns = shuffles(table.rows, seed), []
    for family, one in chosen:
        values = table.columns[one.name]
        columns.append(fit_column(one.name, family, one.type, values, gamma=GAMMA / len(chosen), orders=orders))
        if progress:
            progress(len(columns), len(chosen))
    return Profile(schema, tuple(columns), table.rows, {**provenance, "seed": str(seed)})


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


def _model(schema: Mapping[str, Any]) -> ModelSchema:
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
        elif column.deff >= STRONG:
            found.append(
                f"Column {column.name} is strongly correlated in time: its rows count as 1/{column.deff:.0f} each."
            )
    return found


def write_profile(profile: Profile, path: Path) -> None:
    """Write it beside `path` and rename, so a reader sees the old file or the new one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(pack(profile))
    partial.replace(path)


def read_profile(path: Path) -> Profile:
    """The profile in a file; ConfigError where there is none, StateError where it is damaged."""
    try:
        size = path.stat().st_size
        if size > 2 * LARGEST:
            raise StateError(f"profile {path}: {size} bytes are more than any profile has. {REMEDY}")
        return unpack(path.read_bytes(), f"profile {path}")
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        raise ConfigError(f"profile {path}", problem, f"Correct the path. {REMEDY}") from error


def pack(profile: Profile) -> bytes:
    """The zip; equal bytes for equal profiles and one version of pyarrow."""
    content = profile.to_mapping()
    bins: dict[str, list[Any]] = {name: [] for name in _SCHEMA.names}
    facts = [_take_bins(column, bins) for column in content["columns"]]
    parquet = io.BytesIO()
    pq.write_table(pa.table(bins, _SCHEMA), parquet, compression="none", use_dictionary=False)
    head = json.dumps({**content, "columns": facts, "digest": profile.digest}, sort_keys=True, indent=1)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in ((FACTS, head.encode()), (BINS, parquet.getvalue())):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _take_bins(column: Mapping[str, Any], bins: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Append a column's bins to the Parquet columns and return the rest of it, for the JSON."""
    key, kind = _VALUES[column["bins"]["layout"]]
    size = len(column["counts"])
    held = [*column["bins"][key], *[None] * (size - len(column["bins"][key]))]
    bins["column"] += [column["name"]] * size
    bins["value"] += held if kind == "value" else [None] * size
    bins["level"] += held if kind == "level" else [None] * size
    bins["count"] += column["counts"]
    rest = {name: value for name, value in column.items() if name not in ("bins", "counts")}
    return {**rest, "layout": column["bins"]["layout"]}


def unpack(data: bytes, name: str = "profile") -> Profile:
    """The inverse of `pack`; StateError (beginning with `name`) for damage, another format or a wrong digest."""
    try:
        return _verified(*_members(data))
    except StateError as error:
        raise StateError(f"{name}: {error}. {REMEDY}") from error
    except _DAMAGE as error:
        raise StateError(f"{name}: it is damaged ({type(error).__name__}). {REMEDY}") from error


def _verified(head: bytes, bins: bytes) -> Profile:
    content = json.loads(head)
    if content["format"] != FORMAT:
        raise StateError(f"format {content['format']!r:.20} is not {FORMAT}")
    profile = _assemble(content, _read_bins(bins))
    if profile.digest != content["digest"]:
        raise StateError("its content is not what its digest says")
    return profile


def _members(data: bytes) -> tuple[bytes, bytes]:
    """Both members, no more of either than `LARGEST` whatever its header claims."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sorted(archive.namelist()) != sorted((FACTS, BINS)):
            raise StateError(f"it holds other members than {FACTS} and {BINS}")
        return _bounded(archive, FACTS), _bounded(archive, BINS)


def _bounded(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as member:
        data = member.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise StateError(f"{name} unpacks to more than {LARGEST} bytes")
    return data


def _read_bins(data: bytes) -> Mapping[str, list[dict[str, Any]]]:
    """The bins of every column, in order. A member that would unpack further inside itself is refused."""
    file = pq.ParquetFile(pa.BufferReader(data))
    meta = file.metadata
    groups = [meta.row_group(at) for at in range(meta.num_row_groups)]
    chunks = [group.column(at) for group in groups for at in range(meta.num_columns)]
    plain = all(chunk.compression == "UNCOMPRESSED" and not chunk.has_dictionary_page for chunk in chunks)
    if not plain or meta.num_rows > MOST_BINS or not file.schema_arrow.equals(_SCHEMA):
        raise StateError(f"{BINS} is not as `servelens profile build` writes it")
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in file.read().to_pylist():
        found[row["column"]].append(row)
    return found


def _assemble(content: Mapping[str, Any], bins: Mapping[str, list[dict[str, Any]]]) -> Profile:
    columns = []
    for facts in content["columns"]:
        rows = bins[facts["name"]]
        key, kind = _VALUES[facts["layout"]]
        layout = {"layout": facts["layout"], key: [row[kind] for row in rows[:-2]]}
        rest = {name: value for name, value in facts.items() if name != "layout"}
        columns.append(ColumnReference.from_mapping({**rest, "bins": layout, "counts": [row["count"] for row in rows]}))
    profile = Profile(_model(content["schema"]), tuple(columns), content["rows"], content["provenance"])
    if len(profile.position) != len(columns) or any(column.rows != profile.rows for column in columns):
        raise StateError("its columns contradict each other")
    return profile
