"""Bodies without what the rules hide: parsed, changed, and written anew, so that nothing passes as odd spelling.

Apart from `rules`, which says what applies to an exchange, and `columns`, which knows the protocols' tables. A target
that cannot be applied for certain raises, and the caller leaves the whole body out. Bytes in, bytes out; no I/O.
"""

from collections.abc import Sequence
from dataclasses import replace

from logger import columns, jsonpath
from logger.document import Document
from logger.targets import Target, slot
from servelens.contract.errors import PayloadError
from servelens.contract.events import Half, Side


def redact(half: Half, side: Side, targets: Sequence[Target]) -> tuple[Half, list[str]]:
    """The half with all targets applied, and the slots changed; PayloadError if one cannot be applied for certain.

    A body in which nothing was found stays as it came. One that was changed is stored without its content coding.
    """
    if half.truncated:
        raise PayloadError("body", "is not whole", reason="truncated")
    document = Document(half, side)
    # Paths first: an index means a place of the body as it came, and columns may take tensors out.
    slots = [name for target in targets if target.path for name in _apply_path(document, target)]
    slots += [name for target in targets if not target.path for name in columns.hide(document, target)]
    if not slots:
        return half, slots
    body, length = document.write()
    return replace(half, body=body, header_length=length, encoding=""), slots


def _apply_path(document: Document, target: Target) -> list[str]:
    first = target.path[0]
    if document.binary and (first.kind != "name" or first.value == document.key):
        raise PayloadError("body", "holds binary tensors, which a JSON path does not reach", reason="binary")
    if not all(document.mentions(str(step.value)) for step in target.path if step.kind in ("name", "deep")):
        return []
    if not jsonpath.change(document.root, target.path, target.hiding.at):
        return []
    if document.tensors is not None:
        document.keep_listed()
    return [slot(document.side, target.label)]
