"""Rows as one float64 matrix, categories as codes: what perturbation, de-duplication and caching work on.

Apart from `contract.table`, whose text columns cannot be mixed by a mask or compared by their bytes. Called by the
methods (which mix rows) and by `dialects` (which needs the texts back).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from servelens.contract.errors import TooLarge
from servelens.contract.jsontext import Json
from servelens.contract.schema import ModelSchema
from servelens.contract.table import Table

Array: TypeAlias = npt.NDArray[Any]
Texts: TypeAlias = Mapping[int, tuple[str, ...]]
TEXT: Final = 1024  # characters of a category


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """`matrix` (rows, features) float64; NaN is null. `unseen`: texts of codes beyond the coding's, by feature."""

    matrix: Array
    unseen: Texts = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    def mixed(self, matrix: Array) -> "Rows":
        """Other rows made of these rows' values."""
        return replace(self, matrix=matrix)

    def keys(self) -> list[bytes]:
        """One value a row, equal exactly where rows are equal."""
        own = repr(sorted(self.unseen.items())).encode() if self.unseen else b""
        clean = np.ascontiguousarray(self.matrix + 0.0)  # -0.0 and 0.0 are one value
        width = clean.shape[1] * clean.itemsize
        whole = clean.tobytes()
        return [own + whole[start : start + width] for start in range(0, len(whole), width)]


class Coding:
    """The codes of one model's categories, those of its `model.yaml` and of its background rows."""

    def __init__(self, schema: ModelSchema, background: Table) -> None:
        self.schema = schema
        self.texts: Texts = {
            index: _texts(schema.features[index].categories, background.columns[schema.names[index]])
            for index in schema.categorical
        }
        self._codes = {index: {text: code for code, text in enumerate(texts)} for index, texts in self.texts.items()}

    def encode(self, table: Table) -> Rows:
        """The rows of a table; a text that is not known gets a code of its own, good for these rows alone.

        Raises TooLarge for a text that is no category any more.
        """
        matrix = np.empty((table.rows, len(self.schema.names)))
        unseen: dict[int, tuple[str, ...]] = {}
        for index, name in enumerate(self.schema.names):
            column = table.columns[name]
            if index not in self._codes:
                matrix[:, index] = column
                continue
            if any(text is not None and len(text) > TEXT for text in column):
                raise TooLarge(name, f"a category longer than {TEXT} characters; every row asked would carry it")
            codes, own = self._codes[index], dict[str, int]()
            matrix[:, index] = [
                np.nan
                if text is None
                else codes[text]
                if text in codes
                else own.setdefault(text, len(codes) + len(own))
                for text in column
            ]
            if own:
                unseen[index] = tuple(own)
        return Rows(matrix, unseen)

    def columns(self, rows: Rows) -> list[Array]:
        """The feature columns: float64, or objects, str or None, where categorical."""
        return [
            self._decoded(index, rows) if index in self.texts else rows.matrix[:, index]
            for index in range(rows.matrix.shape[1])
        ]

    def _decoded(self, index: int, rows: Rows) -> Array:
        known = np.array([*self.texts[index], *rows.unseen.get(index, ()), None], np.object_)
        codes = rows.matrix[:, index]
        decoded: Array = known[np.where(np.isnan(codes), len(known) - 1, codes).astype(np.intp)]
        return decoded

    def values(self, row: Rows) -> list[Json]:
        """One row's values as JSON: text, number or null."""
        values: list[Json] = []
        for column in self.columns(row):
            value = column[0]
            values.append(value if value is None or isinstance(value, str) else _plain(float(value)))
        return values

    def join(self, parts: Sequence[Rows]) -> Rows:
        """All rows in order, whatever texts each part came with."""
        if not any(part.unseen for part in parts):
            return Rows(np.concatenate([part.matrix for part in parts]))
        unseen: dict[int, dict[str, int]] = {}
        matrices = [self._recoded(part, unseen) for part in parts]
        return Rows(np.concatenate(matrices), {index: tuple(own) for index, own in unseen.items()})

    def _recoded(self, part: Rows, unseen: dict[int, dict[str, int]]) -> Array:
        matrix = part.matrix.copy() if part.unseen else part.matrix
        for index, texts in part.unseen.items():
            own, first = unseen.setdefault(index, {}), len(self.texts[index])
            codes = np.array([first + own.setdefault(text, len(own)) for text in texts], np.float64)
            beyond = matrix[:, index] >= first
            matrix[beyond, index] = codes[(matrix[beyond, index] - first).astype(np.intp)]
        return matrix


def _plain(number: float) -> Json:
    if np.isnan(number):
        return None
    return int(number) if number.is_integer() and abs(number) < 1 << 53 else number


def _texts(categories: Sequence[str], column: Array) -> tuple[str, ...]:
    found = sorted({text for text in column if text is not None} - set(categories))
    return (*categories, *found)
