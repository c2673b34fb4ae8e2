"""One budget of memory for everything the tap keeps: bodies being captured and frames not yet committed.

Apart since the observer takes from it, and the link gives back to it; neither waits for the other.
"""

from typing import Final

DEFAULT_LIMIT: Final = 32 << 20


class Budget:
    """Counts bytes; `used` never passes `limit`. What does not fit is not kept: nobody ever waits here."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self.limit, self.used = limit, 0

    def take(self, size: int) -> bool:
        """Reserve `size` bytes, or say no."""
        used = self.used + size
        if used > self.limit:
            return False
        self.used = used
        return True

    def give(self, size: int) -> None:
        """Return bytes that were taken."""
        self.used -= size
