"""Bodies without what the rules hide: parsed, changed, and written anew, so that nothing passes as odd spelling.

Apart from `rules`, which says what applies to an exchange. A target that cannot be applied for certain raises, and the
caller leaves the whole body out. Bytes in, bytes out; no I/O.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote

import orjson

from logger import jsonpath
from logger.hiding import Hiding
from logger.inflate import inflated
from logger.jsonpath import Step
from logger.tensors import Tensor, hide_column, hide_whole
from servelens.contract.errors import PayloadError
from servelens.contract.events import Half, Side
from servelens.contract.jsontext import parse_json
from servelens.contract.wire import lay_out, read_header

MOST_SLOTS: Final = 64
SLOT_LENGTH: Final = 128
_KEY: Final = {"request": "inputs", "response": "outputs"}
_ROWS: Final[Mapping[Side, Sequence[str]]] = {
    "request": ("instances", "inputs"),
    "response": ("predictions", "outputs"),
}
_BINARY: Final = "application/octet-stream"
_VISIBLE: Final = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")


@dataclass(frozen=True, slots=True)
class Target:
    """One rule on bodies: a `path`, or a `column` with, for packed rows, the order of their `columns`."""

    hiding: Hiding
    sides: frozenset[Side]
    label: str
    path: tuple[Step, ...] = ()
    column: str = ""
    columns: tuple[str, ...] = ()


def slot(*words: str) -> str:
    """The name of a place that was changed, in visible ASCII."""
    return quote(".".join(words), safe=_VISIBLE)[:SLOT_LENGTH]


def bounded(slots: Iterable[str]) -> tuple[str, ...]:
    """Each slot once, and no more than an event should carry."""
    whole = tuple(dict.fromkeys(slots))
    return whole if len(whole) <= MOST_SLOTS else (*whole[:MOST_SLOTS], "more")


class _Document:
    """A body cut open: its JSON as values, the tensors apart."""

    root: Any

    def __init__(self, body: bytes, half: Half, side: Side) -> None:
        self.side, self.key = side, _KEY[side]
        media = half.content_type.partition(";")[0].strip().lower()
        self.tensors: list[Tensor] | None = None
        if half.header_length is not None or media == _BINARY:
            self.root, length = read_header(body, half.header_length)
            layout = lay_out(self.root, length, body, self.key, exact=half.header_length is not None)  # type: ignore[arg-type]
            self.tensors = [
                Tensor(header, None if span is None else body[slice(*span)])
                for header, span in zip(layout.tensors, layout.spans, strict=True)
            ]
        elif media and "json" not in media:
            raise PayloadError("content-type", "is not JSON", reason="content_type")
        else:
            self.root = parse_json(body)
            found = self.root.get(self.key) if isinstance(self.root, dict) else None
            if isinstance(found, list) and found and all(_is_tensor(item) for item in found):
                self.tensors = [Tensor(item, None) for item in found]
        self.binary = any(tensor.binary is not None for tensor in self.tensors or ())
        self._had_length = half.header_length

    def write(self) -> tuple[bytes, int | None]:
        """The body, and the length of its JSON where binary data follows or was announced."""
        pieces = [b""]
        if self.tensors is not None:
            self.root[self.key] = [tensor.header for tensor in self.tensors]
            pieces = [tensor.binary for tensor in self.tensors if tensor.binary is not None]
        text = orjson.dumps(self.root)
        return b"".join((text, *pieces)), len(text) if self.binary or self._had_length is not None else None


def _is_tensor(item: Any) -> bool:
    return isinstance(item, dict) and "name" in item and "datatype" in item


def redact(half: Half, side: Side, targets: Sequence[Target]) -> tuple[Half, list[str]]:
    """The half with all targets applied, and the slots changed; PayloadError if one cannot be applied for certain."""
    if half.truncated:
        raise PayloadError("body", "is not whole", reason="truncated")
    document = _Document(inflated(half.body, half.encoding), half, side)
    slots = [name for target in targets for name in _apply(document, target)]
    if not slots:
        return half, slots
    body, length = document.write()
    return replace(half, body=body, header_length=length, encoding=""), slots


def is_answer(half: Half) -> bool:
    """Whether a response of unknown status holds predictions and not an error's text, which may echo the request."""
    try:
        document = _Document(inflated(half.body, half.encoding), half, "response")
    except PayloadError:
        return False
    return document.tensors is not None or (isinstance(document.root, dict) and "predictions" in document.root)


def _apply(document: _Document, target: Target) -> Iterable[str]:
    if target.path:
        return _apply_path(document, target)
    if document.tensors is not None:
        return _apply_to_tensors(document, document.tensors, target)
    return _apply_to_rows(document, target)


def _apply_path(document: _Document, target: Target) -> list[str]:
    first = target.path[0]
    if document.binary and (first.kind != "name" or first.value == document.key):
        raise PayloadError("body", "holds binary tensors, which a JSON path does not reach", reason="binary")
    changed = jsonpath.change(document.root, target.path, target.hiding.at)
    if changed and document.tensors is not None:
        _take_over(document)
    return [slot(document.side, target.label)] if changed else []


def _take_over(document: _Document) -> None:
    """A path may have dropped tensors, or the list of them."""
    kept = document.root.get(document.key)
    left = {id(item) for item in kept} if isinstance(kept, list) else set()
    survivors = [tensor for tensor in document.tensors or () if id(tensor.header) in left]
    document.tensors = survivors if isinstance(kept, list) and len(survivors) == len(kept) else None


def _apply_to_tensors(document: _Document, tensors: list[Tensor], target: Target) -> list[str]:
    slots, kept = list[str](), list[Tensor]()
    for tensor in tensors:
        here = [document.side, document.key, tensor.name]
        stays = True
        if tensor.name == target.column:
            stays = hide_whole(tensor, target.hiding)
            slots.append(slot(*here))
        elif _packed(tensor, target):
            index = target.columns.index(target.column)
            stays = hide_column(tensor, target.hiding, index, len(target.columns))
            slots.append(slot(*here, target.column) if stays else slot(*here))
        if stays:
            kept.append(tensor)
    document.tensors = kept
    # What is no tensor: parameters, and members the protocol does not know.
    document.root = {name: value for name, value in document.root.items() if name != document.key}
    named = (Step("deep", target.column),)
    for place in (document.root, *(tensor.header.get("parameters") for tensor in kept)):
        if jsonpath.change(place, named, target.hiding.at):
            slots.append(slot(document.side, target.column))
    return slots


def _packed(tensor: Tensor, target: Target) -> bool:
    shape = tensor.header.get("shape")
    return bool(target.columns) and isinstance(shape, list) and len(shape) > 1 and shape[-1] == len(target.columns)


def _apply_to_rows(document: _Document, target: Target) -> list[str]:
    """V1, or any other JSON: members of that name wherever they are, and a place in rows that are lists."""
    slots = list[str]()
    if jsonpath.change(document.root, (Step("deep", target.column),), target.hiding.at):
        slots.append(slot(document.side, target.column))
    if not isinstance(document.root, dict):
        raise PayloadError("body", "is no object, so no column is known in it", reason="positional")
    for key in _ROWS[document.side]:
        rows = document.root.get(key)
        if isinstance(rows, list) and not all(isinstance(row, dict) for row in rows):
            slots += _apply_to_lists(document.side, key, rows, target)
    return slots


def _apply_to_lists(side: Side, key: str, rows: list[Any], target: Target) -> list[str]:
    if not target.columns:
        if side == "request":
            raise PayloadError(key, "are rows without names; the rule lacks columns", reason="positional")
        return []
    index, width = target.columns.index(target.column), len(target.columns)
    if side == "response" and not any(isinstance(row, list) and len(row) == width for row in rows):
        return []
    for row in rows:
        if isinstance(row, dict):
            continue
        if not isinstance(row, list) or len(row) != width:
            raise PayloadError(key, f"are not rows of {width}", reason="shape")
        row[index] = target.hiding.value(row[index])
    return [slot(side, key, target.column)]
