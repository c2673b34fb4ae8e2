"""A body cut open into what a rule can name: its JSON as values, and its tensors, each with its binary data.

Apart from `redaction`, which hides, since an answer of unknown status is only looked at. Whether a body is JSON is
proved by parsing all of it; one in an unknown coding, character set or format is refused. No I/O.
"""

from typing import Any, Final

import orjson

from logger.inflate import inflated
from logger.tensors import Tensor
from servelens.contract.errors import PayloadError
from servelens.contract.events import Half, Side
from servelens.contract.jsontext import parse_json
from servelens.contract.wire import CONTENT_TYPE_BINARY, ITEM_SIZE, lay_out, read_header
from servelens.contract.wire import Side as Key

_KEYS: Final[dict[Side, Key]] = {"request": "inputs", "response": "outputs"}
_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii"})


class Document:
    """Raises PayloadError for what cannot be read for certain. `tensors` is None where the body has none."""

    root: Any

    def __init__(self, half: Half, side: Side) -> None:
        self.side: Side = side
        self.key = _KEYS[side]
        self._had_length = half.header_length is not None
        self._escapes: bool | None = None
        body, media = inflated(half.body, half.encoding), _media(half.content_type)
        self.tensors: list[Tensor] | None
        if self._had_length or media == CONTENT_TYPE_BINARY:
            self.root, length = read_header(body, half.header_length)
            self._text = body[:length]
            layout = lay_out(self.root, length, body, self.key, exact=self._had_length)
            self.tensors = [
                Tensor(header, None if span is None else body[slice(*span)])
                for header, span in zip(layout.tensors, layout.spans, strict=True)
            ]
        elif media and "json" not in media:
            raise PayloadError("content-type", "is not JSON", reason="content_type")
        else:
            self.root = parse_json(body)
            self._text = body
            self.tensors = _tensors_in(self.root, self.key)

    def mentions(self, name: str) -> bool:
        """Whether its JSON may hold this text, as a key or a value, spelled out or escaped; far less than a walk."""
        if self._escapes is None:
            self._escapes = b"\\" in self._text
        return self._escapes or name.encode() in self._text

    @property
    def binary(self) -> bool:
        """Whether a tensor has its data behind the JSON."""
        return any(tensor.binary is not None for tensor in self.tensors or ())

    def keep_listed(self) -> None:
        """Forget the tensors that are no longer in the JSON, or all if their list is gone."""
        listed = self.root.get(self.key)
        if not isinstance(listed, list):
            self.tensors = None
        elif self.tensors is not None:
            left = set(map(id, listed))
            self.tensors = [tensor for tensor in self.tensors if id(tensor.header) in left]

    def write(self) -> tuple[bytes, int | None]:
        """The body, and the length of its JSON where binary data follows or was announced."""
        pieces = list[bytes]()
        if self.tensors is not None:
            self.root[self.key] = [tensor.header for tensor in self.tensors]
            pieces = [tensor.binary for tensor in self.tensors if tensor.binary is not None]
        text = orjson.dumps(self.root)
        return b"".join((text, *pieces)), len(text) if pieces or self._had_length else None


def is_answer(half: Half) -> bool:
    """Whether a response of unknown status holds predictions and not an error's text, which may echo the request."""
    try:
        document = Document(half, "response")
    except PayloadError:
        return False
    root = document.root
    return isinstance(root, dict) and "error" not in root and (document.tensors is not None or "predictions" in root)


def _media(content_type: str) -> str:
    media, *parameters = (part.strip().lower() for part in content_type.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip(' "') not in _CHARSETS:
            raise PayloadError("content-type", "the character set is not UTF-8", reason="content_type")
    return media


def _tensors_in(root: Any, key: Key) -> list[Tensor] | None:
    """One that is a tensor makes them all tensors: a list of both says nothing for certain."""
    items = root.get(key) if isinstance(root, dict) else None
    if not isinstance(items, list) or not any(map(_is_tensor, items)):
        return None
    if not all(isinstance(item, dict) for item in items):
        raise PayloadError(key, "holds tensors and what is none", reason="wrong_type")
    return [Tensor(item, None) for item in items]


def _is_tensor(item: Any) -> bool:
    """Not by the datatype alone: a server may do without, and a rule must not."""
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        return False
    datatype = item.get("datatype")
    known = isinstance(datatype, str) and datatype in ITEM_SIZE
    return known or isinstance(item.get("shape"), list) or isinstance(item.get("data"), list)
