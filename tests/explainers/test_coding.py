"""Rows as codes: texts survive, also ones nobody has seen, and rows of several origins can be joined."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explainers.coding import TEXT, Coding, Rows
from explainers.session import distinct
from servelens.contract.errors import TooLarge
from servelens.contract.schema import parse_model
from servelens.contract.table import Table, same_table

SCHEMA = parse_model("""
schemaversion: 1
identity: {namespace: n, inferenceservice: i}
features:
  - {name: x, type: numeric}
  - {name: kind, type: categorical, categories: [a, b]}
  - {name: place, type: categorical}
outputs: {kind: values}
""")


def table(*rows: tuple[float, str | None, str | None]) -> Table:
    x, kind, place = zip(*rows, strict=True)
    return Table.of({"x": np.array(x, float), "kind": np.array(kind, object), "place": np.array(place, object)})


CODING = Coding(SCHEMA, table((1, "a", "Graz"), (2, None, "Bern"), (3, "c", "Graz")))


def decoded(rows: Rows) -> Table:
    return Table.of(dict(zip(SCHEMA.names, CODING.columns(rows), strict=True)))


def test_categories_are_those_of_the_schema_then_of_the_background() -> None:
    assert CODING.texts == {1: ("a", "b", "c"), 2: ("Bern", "Graz")}


texts = st.one_of(st.none(), st.sampled_from(["a", "b", "c", "Graz", "Bern", "", "new", "newer"]))


@given(st.lists(st.tuples(st.floats(allow_nan=True), texts, texts), min_size=1, max_size=8))
def test_what_is_encoded_comes_back(rows: list[tuple[float, str | None, str | None]]) -> None:
    given_table = table(*rows)
    assert same_table(decoded(CODING.encode(given_table)), given_table)


def test_joined_rows_keep_their_own_texts() -> None:
    parts = [table((1, "new", "Graz")), table((2, "newer", "Bern"), (3, "new", "Linz")), table((4, "a", None))]
    joined = CODING.join([CODING.encode(part) for part in parts])
    assert same_table(
        decoded(joined), table((1, "new", "Graz"), (2, "newer", "Bern"), (3, "new", "Linz"), (4, "a", None))
    )
    assert decoded(joined).columns["kind"].tolist() == ["new", "newer", "new", "a"]


def test_equal_codes_of_different_new_texts_are_different_rows() -> None:
    one, other = CODING.encode(table((1, "new", "Graz"))), CODING.encode(table((1, "newer", "Graz")))
    assert np.array_equal(one.matrix, other.matrix)
    assert one.keys() != other.keys()


def test_a_row_mixed_from_two_has_the_values_of_both() -> None:
    row, other = CODING.encode(table((1, "new", "Graz"))), CODING.encode(table((2, "a", "Bern")))
    mixed = row.mixed(np.where([[True, True, False]], row.matrix, other.matrix))
    assert CODING.values(mixed) == [1, "new", "Bern"]


def test_values_are_json() -> None:
    assert CODING.values(CODING.encode(table((1.5, None, "Graz")))) == [1.5, None, "Graz"]
    assert CODING.values(CODING.encode(table((np.nan, "a", "Graz")))) == [None, "a", "Graz"]


def test_equal_rows_are_found_whatever_the_sign_of_zero() -> None:
    rows = Rows(np.array([[0.0, 1.0], [-0.0, 1.0], [2.0, np.nan], [0.0, 1.0], [2.0, np.nan]]))
    first, inverse = distinct(rows)
    assert len(first) == 2
    assert len(set(inverse[[0, 1, 3]])) == len(set(inverse[[2, 4]])) == 1
    assert len(set(rows.keys())) == 2


def test_no_category_no_texts() -> None:
    numbers = parse_model(
        "{schemaversion: 1, identity: {namespace: n, inferenceservice: i}, "
        "features: [{name: x, type: numeric}], outputs: {kind: values}}"
    )
    rows = Coding(numbers, Table.of({"x": np.array([1.0])})).encode(Table.of({"x": np.array([7.0])}))
    assert rows.unseen == {}
    assert rows.matrix.tolist() == [[7.0]]


def test_a_text_too_long_for_a_category_is_refused() -> None:
    with pytest.raises(TooLarge, match="place: a category longer"):
        CODING.encode(table((1, "a", "x" * (TEXT + 1))))
