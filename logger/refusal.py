"""What to do with a record the broker does not take: which errors say so, and the marker sent in its stead.

Apart from `shipping`, which knows nothing of what is in a record.
"""

from collections.abc import Sequence
from typing import Final

from kafka.errors import (
    InvalidRecordError,
    InvalidTimestampError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    UnsupportedForMessageFormatError,
)

from servelens.contract.events import EXCHANGE_TYPE, HALF_TYPES

Headers = Sequence[tuple[str, bytes]]

_RECORD_FAULTS: Final = (
    InvalidRecordError,
    InvalidTimestampError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    UnsupportedForMessageFormatError,
)


def is_refusal(error: BaseException) -> bool:
    """Whether the record is at fault, or its batch: sent again as it is, it would be refused again.

    The client gives the innocent of a refused batch a plain KafkaError.
    """
    return isinstance(error, _RECORD_FAULTS) or type(error) is KafkaError


def marker(headers: Headers, value: bytes) -> list[tuple[str, bytes]] | None:
    """The headers of the same event with no bodies: truncated, sizes kept; None for an event that is no exchange."""
    found = dict(headers)
    kind = found.get("ce_type", b"").decode(errors="replace")
    if kind == EXCHANGE_TYPE:
        asked = int(found.get("ce_requestlength", b"0"))
        found["ce_requestlength"] = b"0"
        cut = {"request": asked > 0, "response": len(value) > asked}
    elif kind in HALF_TYPES:
        cut = {HALF_TYPES[kind]: len(value) > 0}
    else:
        return None
    found |= {f"ce_{side}truncated": b"true" for side, was_there in cut.items() if was_there}
    return list(found.items())
