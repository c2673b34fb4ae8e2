"""The synthetic guard: how a request proves to come from our own explainer, and so is no traffic to log.

`x-servelens-synthetic: <expiry>.<hmac>`: expiry in Unix seconds, hmac = HMAC-SHA256 over the expiry's digits, in hex.
In the contract since the explainer signs what the tap verifies. A claim that fails is logged all the same.
"""

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Final

HEADER: Final = "x-servelens-synthetic"
_DIGITS: Final = 12  # of an expiry: until the year 33658


def signer(key: bytes, seconds: float = 60.0, clock: Callable[[], float] = time.time) -> Callable[[], str]:
    """Header values that are valid for `seconds` from now, signed with `key`."""

    def sign() -> str:
        expiry = str(int(clock() + seconds))
        return f"{expiry}.{_mac(key, expiry)}"

    return sign


def verifier(key: bytes, clock: Callable[[], float] = time.time) -> Callable[[str], bool]:
    """A check of header values: unexpired, and signed with `key`; compared in the same time wherever they differ."""

    def valid(value: str) -> bool:
        expiry, _, mac = value.partition(".")
        if not (expiry.isascii() and expiry.isdigit() and len(expiry) <= _DIGITS):
            return False
        return hmac.compare_digest(_mac(key, expiry).encode(), mac.encode()) and int(expiry) >= clock()

    return valid


def _mac(key: bytes, expiry: str) -> str:
    return hmac.new(key, expiry.encode(), hashlib.sha256).hexdigest()
