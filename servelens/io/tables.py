"""Rows from CSV or Parquet into a table: a profile's reference, an explainer's background.

The one module that reads a user's data files; pyarrow parses them. Columns the schema does not name are not read.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from servelens.contract.errors import ConfigError
from servelens.contract.schema import Feature, ModelSchema
from servelens.contract.table import Column, Table

# What CSV writers put where a number is missing. Text columns keep all of it but the empty cell (Namibia is "NA").
_NO_NUMBER: Final = pa.array(["NA", "N/A", "NaN", "nan", "null", "NULL", "None", "NONE", "-", "."])
_BOOLEANS: Final[Mapping[str, str]] = {"true": "1", "false": "0", "True": "1", "False": "0", "TRUE": "1", "FALSE": "0"}


def read_table(path: Path, schema: ModelSchema) -> Table:
    """The schema's features, and its prediction columns where the file has them, in the file's order of rows.

    `.csv` (also `.csv.gz`), `.parquet` or `.pq`. Raises ConfigError naming missing columns, or the one that does not
    hold what model.yaml says.
    """
    read = next((reader for suffix, reader in _READERS.items() if path.name.lower().endswith(suffix)), None)
    if read is None:
        raise ConfigError(str(path), "its kind is not known", f"Name it {', '.join(_READERS)}")
    try:
        data = read(path, schema)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(str(path), f"cannot be read ({error})", "Correct the path or the file") from error
    wanted = [one for one in (*schema.features, *schema.predictions) if one.name in data.column_names]
    return Table.of({one.name: _convert(path, one, data.column(one.name)) for one in wanted}, data.num_rows)


def read_times(path: Path, column: str) -> npt.NDArray[np.int64]:
    """(rows,) when each row was, Unix microseconds, from a column of times or of RFC 3339 text.

    Times without a zone are UTC. Raises ConfigError for a column that is missing or holds something else.
    """
    try:
        if path.name.lower().endswith((".parquet", ".pq")):
            values = pq.read_table(path, columns=[column]).column(column)
        else:
            values = pacsv.read_csv(path, convert_options=pacsv.ConvertOptions(include_columns=[column])).column(column)
        if pa.types.is_string(values.type):
            values = pc.assume_timezone(pc.cast(values, pa.timestamp("us")), "UTC")
        moments = values.cast(pa.timestamp("us", values.type.tz)).cast(pa.int64())
    except (OSError, KeyError, AttributeError, pa.ArrowException) as error:
        raise ConfigError("--time-column", f"{column} holds no times ({error})", "Name a column of times.") from error
    if moments.null_count:
        raise ConfigError("--time-column", f"{column} has {moments.null_count} rows without a time", "Fill them in.")
    found: npt.NDArray[np.int64] = np.array(moments.to_numpy(), np.int64)
    return found


def _read_csv(path: Path, schema: ModelSchema) -> pa.Table:
    """Every column as text, the empty cell being null; the schema says afterwards what it is."""
    with pacsv.open_csv(path) as reader:
        names = _choose(path, reader.schema.names, schema)
    options = pacsv.ConvertOptions(
        include_columns=names,
        column_types=dict.fromkeys(names, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
    )
    return pacsv.read_csv(path, convert_options=options)


def _read_parquet(path: Path, schema: ModelSchema) -> pa.Table:
    with pq.ParquetFile(path) as file:
        return file.read(columns=_choose(path, file.schema_arrow.names, schema))


_READERS: Final[Mapping[str, Callable[[Path, ModelSchema], pa.Table]]] = {
    ".csv": _read_csv,
    ".csv.gz": _read_csv,
    ".parquet": _read_parquet,
    ".pq": _read_parquet,
}


def _choose(path: Path, names: list[str], schema: ModelSchema) -> list[str]:
    missing = [feature.name for feature in schema.features if feature.name not in names]
    if missing:
        problem = f"it lacks the columns {', '.join(missing)}"
        raise ConfigError(str(path), problem, "Add them, or correct the features of model.yaml")
    return [one.name for one in (*schema.features, *schema.predictions) if one.name in names]


def _convert(path: Path, feature: Feature, values: pa.ChunkedArray) -> Column:
    """(rows,) as `contract.table` holds them."""
    try:
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        return _text(feature, values) if feature.is_categorical else _numbers(values)
    except (pa.ArrowException, IndexError) as error:
        problem = f"column {feature.name} is not {feature.type} ({error})"
        raise ConfigError(str(path), problem, "Correct the column, or its type in model.yaml") from error


def _text(feature: Feature, values: pa.ChunkedArray) -> Column:
    """Integers of a coded column are indices of its categories, as they are in payloads."""
    if feature.coded and pa.types.is_integer(values.type):
        values = pc.take(pa.array(feature.categories), values)
    column = np.empty(len(values), np.object_)
    column[:] = values.cast(pa.string()).to_pylist()
    return column


def _numbers(values: pa.ChunkedArray) -> Column:
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        values = values.cast(pa.string())
        values = pc.if_else(pc.is_in(values, _NO_NUMBER), None, values)
        for word, digit in _BOOLEANS.items():
            values = pc.if_else(pc.equal(values, word), digit, values)
    elif pa.types.is_boolean(values.type):
        values = values.cast(pa.uint8())
    numbers: Any = values.cast(pa.float64()).to_numpy()
    return np.array(numbers, np.float64)  # pyarrow's is read-only
