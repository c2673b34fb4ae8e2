"""A file that is read again when it changes: rules, tenants. The last good version stays in force.

Apart from what is in the file; called wherever its value is needed. Kubernetes swaps a mounted file whole, so a change
shows in what the path leads to.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from servelens.contract.errors import ConfigError

log = logging.getLogger(__name__)

SIZE_LIMIT: Final = 1 << 20  # bytes
EVERY: Final = 1.0  # seconds between looks
_T = TypeVar("_T")


class Reread(Generic[_T]):
    """What `parse` makes of the file's text, as it is now; `setting` is the flag that names the file.

    A wrong change is told and counted once; at the start it is a ConfigError, as `parse` raises.
    """

    def __init__(
        self,
        path: Path,
        parse: Callable[[str], _T],
        setting: str,
        clock: Callable[[], float] = time.monotonic,
        every: float = EVERY,
        on_error: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self._path, self._parse, self._setting, self._on_error = path, parse, setting, on_error
        self._clock, self._every, self._looked = clock, every, clock()
        try:
            self._mark, self._value = _stamp(path), self._read()
        except OSError as error:
            raise ConfigError(setting, f"cannot read {path} ({error.strerror})", "Give a readable file.") from error

    def current(self) -> _T:
        """Looks at the file at most every `every` seconds."""
        now = self._clock()
        if now - self._looked >= self._every:
            self._looked = now
            self._look()
        return self._value

    def _look(self) -> None:
        try:
            mark = _stamp(self._path)
            if mark == self._mark:
                return
            self._mark = mark
            value = self._read()
            if _stamp(self._path) == mark:  # else it is being written, and the next look sees another mark
                self._value = value
                log.info("file read again", extra={"setting": self._setting})
        except FileNotFoundError:
            return  # between two versions of a mounted file
        except (ConfigError, OSError) as error:
            log.error("left as it was", extra={"setting": self._setting, "problem": str(error)})  # noqa: TRY400  it says what to do
            self._on_error(error)

    def _read(self) -> _T:
        with self._path.open("rb") as file:
            raw = file.read(SIZE_LIMIT + 1)
        try:
            return self._parse(raw.decode())
        except UnicodeDecodeError as error:
            raise ConfigError(self._setting, f"is not UTF-8 (byte {error.start})", "Save it as UTF-8.") from None


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()  # through the symlinks of a mounted ConfigMap
    return found.st_mtime_ns, found.st_size, found.st_ino
