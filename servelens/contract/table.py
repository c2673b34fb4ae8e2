"""Named columns of equal length: what a model was given and what it answered, whichever protocol carried it.

Apart from `rows`, which fills tables, since profile, detector and explainer only ever read them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from servelens.contract.errors import PayloadError

Column: TypeAlias = npt.NDArray[Any]
_TEXT_OR_NULL = frozenset({str, type(None)})


class Block(Mapping[str, Column]):
    """Columns whose numeric ones lie in one array, so that a one-row table costs one array and not one per column.

    `numbers` has shape (numeric columns, rows) float64, `positions` says which of its rows a column is; `texts` has the
    others. `names` is the order of all.
    """

    __slots__ = ("names", "numbers", "positions", "texts")

    def __init__(
        self, names: Sequence[str], positions: Mapping[str, int], numbers: Column, texts: Mapping[str, Column]
    ) -> None:
        self.names, self.positions, self.numbers, self.texts = names, positions, numbers, texts

    def __getitem__(self, name: str) -> Column:
        position = self.positions.get(name)
        if position is None:
            return self.texts[name]
        column: Column = self.numbers[position]
        return column

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """`rows` rows of named columns, each of shape (rows,).

    Numeric columns are float64 with NaN for null (integers beyond 2**53 are rounded, booleans are 0 and 1); categorical
    columns are object arrays of str with None for null. `Table.of` checks that; the fields are for code that knows.
    """

    columns: Mapping[str, Column]
    rows: int

    @classmethod
    def of(cls, columns: Mapping[str, Column], rows: int | None = None) -> "Table":
        """A table of these columns; `rows` is needed only if there are none. Raises PayloadError naming the column."""
        if rows is None:
            rows = next((len(column) for column in columns.values()), 0)
        for name, column in columns.items():
            _check_column(name, column, rows)
        return cls(dict(columns), rows)


def _check_column(name: str, column: Column, rows: int) -> None:
    if column.shape != (rows,):
        raise PayloadError(name, f"a column of shape {column.shape}, expected ({rows},)", reason="wrong_shape")
    if column.dtype == np.float64:
        return
    if column.dtype != np.object_:
        problem = f"a column of {column.dtype}: numeric columns are float64, categorical ones objects"
        raise PayloadError(name, problem, reason="wrong_type")
    if not _TEXT_OR_NULL.issuperset(map(type, column)):
        raise PayloadError(name, "a categorical column holds something that is not text or None", reason="wrong_type")


def concat(tables: Sequence[Table]) -> Table:
    """The rows of all tables in order; no tables make no columns. Raises PayloadError where their columns differ."""
    if len(tables) <= 1:
        return tables[0] if tables else Table({}, 0)
    rows = sum(table.rows for table in tables)
    first = tables[0].columns
    blocks = [table.columns for table in tables if isinstance(table.columns, Block)]
    if len(blocks) == len(tables) and all(block.positions is blocks[0].positions for block in blocks):
        return Table(_concat_blocks(blocks), rows)
    if not all(list(table.columns) == list(first) for table in tables):
        raise PayloadError("columns", "tables with different columns cannot be joined", reason="wrong_shape")
    return Table({name: np.concatenate([table.columns[name] for table in tables]) for name in first}, rows)


def _concat_blocks(blocks: Sequence[Block]) -> Block:
    """Blocks of one schema: they share its `positions`."""
    first = blocks[0]
    numbers = np.concatenate([block.numbers for block in blocks], axis=1)
    texts = {name: np.concatenate([block.texts[name] for block in blocks]) for name in first.texts}
    return Block(first.names, first.positions, numbers, texts)


def same_table(left: Table, right: Table) -> bool:
    """Equal names in equal order, equal dtypes and equal values, nulls being equal to nulls."""
    return (
        left.rows == right.rows
        and list(left.columns) == list(right.columns)
        and all(_same_column(column, right.columns[name]) for name, column in left.columns.items())
    )


def _same_column(left: Column, right: Column) -> bool:
    return left.dtype == right.dtype and np.array_equal(left, right, equal_nan=left.dtype == np.float64)
