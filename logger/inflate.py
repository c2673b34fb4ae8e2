"""A compressed body decoded in bounds: never more bytes than the limits, whatever a bomb would make of itself.

Apart from `redaction`, which reads what comes out. Sources: RFC 9110 section 8.4.1 (gzip, deflate), RFC 7932 (br).
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Final

import brotli

from servelens.contract.errors import PayloadError, TooLarge

LIMIT: Final = 16 << 20  # bytes of a decoded body
RATIO: Final = 100  # what is larger than FREE may be so many times its compressed size; JSON is near ten
FREE: Final = 1 << 20
_GZIP: Final = 16 + zlib.MAX_WBITS
_FIELD: Final = "content-encoding"


def _zlib(body: bytes, limit: int, window: int) -> bytes:
    decoder = zlib.decompressobj(window)
    out = decoder.decompress(body, limit + 1)
    if len(out) <= limit and (not decoder.eof or decoder.unused_data):
        raise PayloadError(_FIELD, "the body does not end where its compressed data does", reason="encoding")
    return out


def _deflate(body: bytes, limit: int) -> bytes:
    try:
        return _zlib(body, limit, zlib.MAX_WBITS)
    except zlib.error:
        return _zlib(body, limit, -zlib.MAX_WBITS)  # without the zlib wrapper, as some send it


def _brotli(body: bytes, limit: int) -> bytes:
    decoder, out = brotli.Decompressor(), b""
    data = body
    while len(out) <= limit and not decoder.is_finished():
        piece = decoder.process(data, output_buffer_limit=limit + 1 - len(out))
        out, data = out + piece, b""
        if not piece and decoder.can_accept_more_data():
            raise PayloadError(_FIELD, "the compressed data is cut off", reason="encoding")
    return out


_DECODERS: Final[Mapping[str, Callable[[bytes, int], bytes]]] = {
    "gzip": lambda body, limit: _zlib(body, limit, _GZIP),
    "x-gzip": lambda body, limit: _zlib(body, limit, _GZIP),
    "deflate": _deflate,
    "br": _brotli,
}


def inflated(body: bytes, encoding: str, limit: int = LIMIT) -> bytes:
    """The body without its coding; PayloadError (`encoding`) if that is unknown or broken, TooLarge over the limits."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    decode = _DECODERS.get(name)
    if decode is None:
        raise PayloadError(_FIELD, "is none of gzip, deflate, br", reason="encoding")
    limit = min(limit, max(FREE, RATIO * len(body)))
    try:
        out = decode(body, limit)
    except (zlib.error, brotli.error) as error:
        raise PayloadError(_FIELD, "the body is not what its coding says", reason="encoding") from error
    if len(out) > limit:
        raise TooLarge("body", f"more than {limit} bytes once decoded")
    return out
