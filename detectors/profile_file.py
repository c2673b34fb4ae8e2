"""The file of a profile: a zip of `profile.json` and `columns.parquet`, with `seasons.parquet` where it has seasons.

Apart from `profile`, which says what is in it. What is read is distrusted: sizes are checked before anything is
unpacked, nothing is compressed inside the Parquet members, and the digest is computed again. Called by
`servelens profile`, by `book` and by `activation`.
"""

import io
import json
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from detectors.columns import ColumnReference
from detectors.profile import FORMAT, Profile, Segment, model_of
from detectors.seasons import COUNTS
from servelens.contract.errors import ConfigError, StateError

FACTS, BINS, SEASONS = "profile.json", "columns.parquet", "seasons.parquet"
LARGEST: Final = 64 << 20  # bytes of a member unpacked
MOST_BINS: Final = 2_000_000
REMEDY: Final = "Build it again with `servelens profile build`"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the zip format's zero, so that equal profiles are equal files
# `value`: upper edge of a range or a number level; `level`: a text level; both null for open, unseen and null bins.
_SCHEMA: Final = pa.schema(
    [("column", pa.string()), ("value", pa.float64()), ("level", pa.string()), ("count", pa.int64())]
)
# Only what is not 0.
_BY_SEASON: Final = pa.schema(
    [("column", pa.string()), ("season", pa.int64()), ("bin", pa.int64()), ("count", pa.int64())]
)
# What the zip, JSON and Parquet readers raise on bytes that are not theirs (RuntimeError: an encrypted member).
_DAMAGE: Final = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError),
    *(pa.ArrowException, zipfile.BadZipFile, zlib.error),
)
_VALUES: Final = {
    "quantiles": ("edges", "value"),
    "limited": ("edges", "value"),
    "numbers": ("levels", "value"),
    "texts": ("levels", "level"),
}


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
    head = json.dumps({**content, "columns": facts, "digest": profile.digest}, sort_keys=True, indent=1)
    members = [(FACTS, head.encode()), (BINS, _parquet(pa.table(bins, _SCHEMA)))]
    if profile.season:
        members.append((SEASONS, _parquet(_seasons(profile))))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, compression="none", use_dictionary=False)
    return out.getvalue()


def _seasons(profile: Profile) -> pa.Table:
    rows: dict[str, list[Any]] = {name: [] for name in _BY_SEASON.names}
    for column in profile.columns:
        if column.seasonal is not None:
            season, at = np.nonzero(column.seasonal)
            rows["column"] += [column.name] * len(at)
            rows["season"] += season.tolist()
            rows["bin"] += at.tolist()
            rows["count"] += column.seasonal[season, at].tolist()
    return pa.table(rows, _BY_SEASON)


def _take_bins(column: Mapping[str, Any], bins: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Append a column's bins to the Parquet columns and return the rest of it, for the JSON."""
    key, kind = _VALUES[column["bins"]["layout"]]
    size = len(column["counts"])
    held = [*column["bins"][key], *[None] * (size - len(column["bins"][key]))]
    bins["column"] += [column["name"]] * size
    bins["value"] += held if kind == "value" else [None] * size
    bins["level"] += held if kind == "level" else [None] * size
    bins["count"] += column["counts"]
    rest = {name: value for name, value in column.items() if name not in ("bins", "counts", "seasonal")}
    return {**rest, "layout": column["bins"]["layout"]}


def unpack(data: bytes, name: str = "profile") -> Profile:
    """The inverse of `pack`; StateError (beginning with `name`) for damage, another format or a wrong digest."""
    try:
        return _verified(_members(data))
    except StateError as error:
        raise StateError(f"{name}: {error}. {REMEDY}") from error
    except _DAMAGE as error:
        raise StateError(f"{name}: it is damaged ({type(error).__name__}). {REMEDY}") from error


def _verified(members: Mapping[str, bytes]) -> Profile:
    content = json.loads(members[FACTS])
    if content["format"] != FORMAT:
        raise StateError(f"format {content['format']!r:.20} is not {FORMAT}")
    if bool(content["season"]) != (SEASONS in members):
        raise StateError("its seasons are missing, or there are some that nobody asked for")
    profile = _assemble(content, _read_bins(members[BINS]), _read_seasons(members.get(SEASONS)))
    if profile.digest != content["digest"]:
        raise StateError("its content is not what its digest says")
    return profile


def _members(data: bytes) -> dict[str, bytes]:
    """Its members, no more of any than `LARGEST` whatever its header claims."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = sorted(archive.namelist())
        if names not in (sorted((FACTS, BINS)), sorted((FACTS, BINS, SEASONS))):
            raise StateError(f"it holds other members than {FACTS}, {BINS} and {SEASONS}")
        return {name: _bounded(archive, name) for name in names}


def _bounded(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as member:
        data = member.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise StateError(f"{name} unpacks to more than {LARGEST} bytes")
    return data


def _read_bins(data: bytes) -> Mapping[str, list[dict[str, Any]]]:
    """The bins of every column, in order."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in _rows(data, BINS, _SCHEMA):
        found[row["column"]].append(row)
    return found


def _read_seasons(data: bytes | None) -> Mapping[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in [] if data is None else _rows(data, SEASONS, _BY_SEASON):
        found[row["column"]].append(row)
    return found


def _rows(data: bytes, name: str, schema: pa.Schema) -> list[dict[str, Any]]:
    """The rows of a Parquet member; one that would unpack further inside itself is refused."""
    file = pq.ParquetFile(pa.BufferReader(data))
    meta = file.metadata
    groups = [meta.row_group(at) for at in range(meta.num_row_groups)]
    chunks = [group.column(at) for group in groups for at in range(meta.num_columns)]
    plain = all(chunk.compression == "UNCOMPRESSED" and not chunk.has_dictionary_page for chunk in chunks)
    if not plain or meta.num_rows > MOST_BINS or not file.schema_arrow.equals(schema):
        raise StateError(f"{name} is not as `servelens profile build` writes it")
    rows: list[dict[str, Any]] = file.read().to_pylist()
    return rows


def _assemble(
    content: Mapping[str, Any],
    bins: Mapping[str, list[dict[str, Any]]],
    seasons: Mapping[str, list[dict[str, Any]]],
) -> Profile:
    columns, season = [], content["season"]
    for facts in content["columns"]:
        rows = bins[facts["name"]]
        key, kind = _VALUES[facts["layout"]]
        layout = {"layout": facts["layout"], key: [row[kind] for row in rows[:-2]]}
        rest = {name: value for name, value in facts.items() if name != "layout"}
        counts = [row["count"] for row in rows]
        seasonal = _dense(seasons[facts["name"]], COUNTS[season], len(counts)) if season else None
        columns.append(ColumnReference.from_mapping({**rest, "bins": layout, "counts": counts, "seasonal": seasonal}))
    segment = Segment(*content["segment"]) if content["segment"] else None
    model, series = model_of(content["schema"]), tuple(content["series"])
    profile = Profile(model, tuple(columns), content["rows"], content["provenance"], season, segment, series)
    if len(profile.position) != len(columns) or any(column.rows != profile.rows for column in columns):
        raise StateError("its columns contradict each other")
    return profile


def _dense(rows: list[dict[str, Any]], seasons: int, bins: int) -> list[list[int]]:
    """(seasons, bins) counts; IndexError for a place outside."""
    held = [[0] * bins for _ in range(seasons)]
    for row in rows:
        if row["season"] < 0 or row["bin"] < 0:
            raise StateError("a season or bin is negative")
        held[row["season"]][row["bin"]] += row["count"]
    return held
