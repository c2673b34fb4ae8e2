"""Tables: what is a column, and joining them."""

import numpy as np
import pytest

from servelens.contract.errors import PayloadError
from servelens.contract.table import Block, Column, Table, concat, same_table


def numeric(*values: float) -> Column:
    return np.array(values, np.float64)


def text(*values: str | None) -> Column:
    return np.array(values, object)


def test_a_table_of_columns_knows_its_rows() -> None:
    table = Table.of({"delay": numeric(1, np.nan), "carrier": text("AA", None)})
    assert table.rows == 2
    assert list(table.columns) == ["delay", "carrier"]
    assert Table.of({}).rows == 0
    assert Table.of({}, rows=3).rows == 3


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"a": numeric(1, 2), "b": numeric(1)}, "wrong_shape"),
        ({"a": numeric(1, 2).reshape(1, 2)}, "wrong_shape"),
        ({"a": np.array([1, 2])}, "wrong_type"),
        ({"a": np.array([1, 2], np.float32)}, "wrong_type"),
        ({"a": np.array(["x"])}, "wrong_type"),
        ({"a": np.array(["x", 1], object)}, "wrong_type"),
        ({"a": np.array([b"x"], object)}, "wrong_type"),
    ],
)
def test_what_is_no_table_is_refused_naming_the_column(columns: dict[str, Column], reason: str) -> None:
    with pytest.raises(PayloadError) as caught:
        Table.of(columns)
    assert caught.value.reason == reason
    assert caught.value.field in columns


def test_tables_are_equal_when_nulls_types_and_order_are() -> None:
    table = Table.of({"a": numeric(1, np.nan), "b": text("x", None)})
    assert same_table(table, Table.of({"a": numeric(1, np.nan), "b": text("x", None)}))
    assert not same_table(table, Table.of({"b": text("x", None), "a": numeric(1, np.nan)}))
    assert not same_table(table, Table.of({"a": numeric(1, 0), "b": text("x", None)}))
    assert not same_table(table, Table.of({"a": numeric(1, np.nan), "b": text("x", "y")}))
    assert not same_table(Table.of({"a": numeric(1)}), Table.of({"a": text("1")}))
    assert not same_table(Table.of({}, rows=1), Table.of({}, rows=2))


def block(positions: dict[str, int], numbers: list[list[float]], texts: dict[str, Column]) -> Table:
    columns = Block(("a", "c", "b"), positions, np.array(numbers, np.float64), texts)
    return Table(columns, len(numbers[0]))


def test_a_block_is_a_mapping_of_columns_in_its_own_order() -> None:
    columns = block({"a": 0, "b": 1}, [[1, 2], [3, 4]], {"c": text("x", None)}).columns
    assert list(columns) == ["a", "c", "b"]
    assert len(columns) == 3
    assert "b" in columns
    assert "d" not in columns
    with pytest.raises(KeyError):
        columns["d"]
    assert columns["b"].tolist() == [3, 4]
    assert columns["c"].tolist() == ["x", None]


def test_blocks_of_one_schema_are_joined_like_any_tables() -> None:
    positions = {"a": 0, "b": 1}
    parts = [block(positions, [[1, 2], [3, 4]], {"c": text("x", None)}), block(positions, [[5], [6]], {"c": text("y")})]
    whole = Table.of({"a": numeric(1, 2, 5), "c": text("x", None, "y"), "b": numeric(3, 4, 6)})
    assert same_table(concat(parts), whole)
    assert isinstance(concat(parts).columns, Block)
    plain = Table.of(dict(parts[1].columns))
    assert same_table(concat([parts[0], plain]), whole)
    other_schema = block({"a": 1, "b": 0}, [[6], [5]], {"c": text("y")})
    assert same_table(concat([parts[0], other_schema]), whole)


def test_joining_none_or_one_table() -> None:
    table = Table.of({"a": numeric(1)})
    assert concat([]).rows == 0
    assert concat([table]) is table


def test_tables_with_different_columns_are_not_joined() -> None:
    with pytest.raises(PayloadError, match="columns"):
        concat([Table.of({"a": numeric(1)}), Table.of({"b": numeric(1)})])
