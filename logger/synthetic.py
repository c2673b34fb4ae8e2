"""The synthetic guard: whether a request proves to come from our own explainer, and so is no traffic to log.

`x-servelens-synthetic: <expiry>.<hmac>`: expiry in Unix seconds, hmac = HMAC-SHA256 over the expiry's digits, in hex.
Apart from the tap so that what a key file holds is read in one place. A claim that fails here is logged all the same.
"""

import hashlib
import hmac
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from servelens.contract.errors import ConfigError

_DIGITS: Final = 12  # of an expiry: until the year 33658


def read_key(path: Path) -> bytes:
    """The key file's bytes without surrounding white space; ConfigError if there are none."""
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        problem = f"{path} cannot be read ({error.strerror})"
        raise ConfigError("--synthetic-key", problem, "Mount the Secret there, or leave the flag out.") from error
    if not key:
        raise ConfigError("--synthetic-key", f"{path} is empty", "Put a random key of 32 bytes or more into it.")
    return key


def verifier(key: bytes, clock: Callable[[], float] = time.time) -> Callable[[str], bool]:
    """A check of header values: unexpired, and signed with `key`; compared in the same time wherever they differ."""

    def valid(value: str) -> bool:
        expiry, _, mac = value.partition(".")
        if not (expiry.isascii() and expiry.isdigit() and len(expiry) <= _DIGITS):
            return False
        expected = hmac.new(key, expiry.encode(), hashlib.sha256).hexdigest()
        return hmac.compare_digest(expected.encode(), mac.encode()) and int(expiry) >= clock()

    return valid
