"""A column hidden wherever a body may keep it: a tensor of that name, a member of an object, a place in a row.

Apart from `redaction`, which also knows paths. Where a request keeps values without names and the rule cannot say
which is which, PayloadError: the caller leaves the body out. Bodies of neither protocol are searched for the name only.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from logger.document import Document
from logger.jsonpath import change_named
from logger.targets import Target, slot
from logger.tensors import Tensor, hide_column, hide_members, hide_whole
from servelens.contract.errors import PayloadError
from servelens.contract.events import Side

_ROWS: Final[Mapping[Side, Sequence[str]]] = {
    "request": ("instances", "inputs"),
    "response": ("predictions", "outputs"),
}
_OURS: Final = frozenset({"instances", "inputs", "predictions", "outputs", "parameters"})


def hide(document: Document, target: Target) -> list[str]:
    """Change the document; the slots changed."""
    if not isinstance(document.root, dict):
        raise PayloadError("body", "is no object, so no column is known in it", reason="positional")
    slots = list[str]()
    if document.tensors is not None:
        document.tensors = list(_tensors_left(document, document.tensors, target, slots))
    if document.mentions(target.column):
        slots += _members(document, target)
    for key in _ROWS[document.side]:
        rows = document.root.get(key)
        if isinstance(rows, list) and not _holds_tensors(document, key):
            slots += _rows(document.side, key, rows, target)
    return slots


def _holds_tensors(document: Document, key: str) -> bool:
    return key == document.key and document.tensors is not None


def _tensors_left(document: Document, tensors: Sequence[Tensor], target: Target, slots: list[str]) -> Iterator[Tensor]:
    found = False
    for tensor in tensors:
        here, stays = (document.side, document.key, tensor.called), True
        if tensor.name == target.column:
            found, stays = True, hide_whole(tensor, target.hiding)
            slots.append(slot(document.side, document.key, target.column))
        elif target.columns and tensor.packs(len(target.columns)):
            index = target.columns.index(target.column)
            found, stays = True, hide_column(tensor, target.hiding, index, len(target.columns))
            slots.append(slot(*here, target.column) if stays else slot(*here))
        if stays:
            if hide_members(tensor, target.column, target.hiding):
                slots.append(slot(*here, target.column))
            yield tensor
    if not found and document.side == "request" and any(tensor.wide for tensor in tensors):
        _refuse(document.key, target)


def _refuse(key: str, target: Target) -> None:
    if target.columns:
        raise PayloadError(key, f"are not rows of {len(target.columns)}", reason="shape")
    raise PayloadError(key, "are rows without names; the rule lacks columns", reason="positional")


def _members(document: Document, target: Target) -> Iterator[str]:
    """All that is no tensor: rows that are objects, parameters, and what the protocols do not know."""
    root, column = document.root, target.column
    direct = [column, *(["data"] if root.get("name") == column else [])]
    for key in tuple(root):
        if _holds_tensors(document, key):
            continue
        if key in direct:
            target.hiding.at(root, key)
            yield slot(document.side, column)
        elif change_named(root[key], column, target.hiding.at):
            yield slot(document.side, *((key,) if key in _OURS else ()), column)


def _rows(side: Side, key: str, rows: list[Any], target: Target) -> list[str]:
    """Rows that are lists. An answer's need not be of the columns named; a request's must be."""
    if all(isinstance(row, dict) for row in rows):
        return []
    width = len(target.columns)
    if side == "response" and not any(isinstance(row, list) and width and len(row) == width for row in rows):
        return []
    for row in rows:
        if isinstance(row, dict):
            continue
        if not target.columns or not isinstance(row, list) or len(row) != width:
            _refuse(key, target)
        index = target.columns.index(target.column)
        row[index] = target.hiding.value(row[index])
    return [slot(side, key, target.column)]
