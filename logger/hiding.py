"""How a value is hidden: dropped, masked, or replaced by its HMAC so that equal ones can still be joined.

Apart from `redaction`, which finds the values. What is not text has no mask of its own type: a number becomes null.
"""

import hmac
from dataclasses import dataclass
from typing import Any, Final, Literal

from logger.jsonpath import Place

Action = Literal["drop", "mask", "hmac"]
MASK: Final = "***"
PREFIX: Final = "hmac:"
_BYTES: Final = 16  # 128 bits: nobody finds two values of one, and a column stays readable


@dataclass(frozen=True, slots=True)
class Hiding:
    """One action; `key` is the secret of `hmac`."""

    action: Action
    key: bytes = b""

    def text(self, value: str) -> str:
        """What stands for a text; empty if it is dropped."""
        if self.action == "hmac":
            return self._digest(value.encode())
        return MASK if self.action == "mask" else ""

    def raw(self, value: bytes) -> bytes:
        """The same for an element of a BYTES tensor."""
        if self.action == "hmac":
            return self._digest(value).encode()
        return MASK.encode() if self.action == "mask" else b""

    def value(self, value: Any) -> Any:
        """What stands for a JSON value: texts as above, of lists each element, null for all else."""
        if isinstance(value, str) and self.action != "drop":
            return self.text(value)
        if isinstance(value, list):
            return [self.value(element) for element in value]
        return None

    def at(self, parent: Place, key: Any) -> None:
        """Hide what stands at `key`: a dropped member is gone, a dropped element is null, so that none moves up."""
        if self.action == "drop":
            if isinstance(parent, dict):
                parent.pop(key, None)
            else:
                parent[key] = None
        else:
            parent[key] = self.value(parent[key])

    def _digest(self, value: bytes) -> str:
        return PREFIX + hmac.digest(self.key, value, "sha256")[:_BYTES].hex()
