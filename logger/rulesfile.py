"""The rules as an operator writes them: YAML, checked whole, read again when the file changes.

Apart from `rules`, which needs no pydantic: a logger without `--rules` never imports this. `schema()` is the JSON
Schema of the file, for editors and CI.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from logger import jsonpath
from logger.hiding import Hiding
from logger.redaction import Target
from logger.rules import HeaderTarget, Redaction, Rules, Scope, Selection
from servelens.contract.errors import ConfigError
from servelens.contract.events import Side

log = logging.getLogger(__name__)

SIZE_LIMIT: Final = 1 << 20  # characters
_KEY_BYTES: Final = 16
# Headers that are kept at all, and where.
HEADERS: Final = {
    "x-request-id": "requestid",
    "ce-id": "requestid",
    "traceparent": "traceparent",
    "content-type": "content_type",
}
Name = Annotated[str, Field(min_length=1, max_length=256)]
_SIDES: Final[dict[str, frozenset[Side]]] = {
    "request": frozenset(("request",)),
    "response": frozenset(("response",)),
    "both": frozenset(("request", "response")),
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Scoped(_Strict):
    path: str = Field("", description="Glob over the path without query.")
    model: str = Field("", description="Glob over the model's name.")

    def scope(self, method: str = "") -> Scope:
        return Scope(self.path, self.model, method)


class SelectRule(_Scoped):
    """The first rule that fits decides."""

    method: str = Field("", pattern=r"^[A-Z]*$")
    status: Annotated[str, Field(pattern=r"^([1-5]xx|[1-5]\d\d(-[1-5]\d\d)?)$")] | int | None = None
    log: bool = True
    sample: float = Field(1.0, ge=0, le=1)

    def selection(self) -> Selection:
        """As the recorder needs it."""
        return Selection(self.scope(self.method), self.sample if self.log else 0.0, _statuses(self.status))


class RedactRule(_Scoped):
    """One of `json`, `column`, `header`, and what is done with it."""

    json_path: str | None = Field(None, alias="json", description="As $.instances[*].ssn.")
    column: Name | None = None
    columns: list[Name] = Field([], description="All columns in order, where rows are lists or packed tensors.")
    header: Literal["x-request-id", "ce-id", "traceparent", "content-type"] | None = None
    side: Literal["request", "response", "both"] = "both"  # `on` would be true in YAML 1.1
    action: Literal["drop", "mask", "hmac"]

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if sum(value is not None for value in (self.json_path, self.column, self.header)) != 1:
            raise ValueError("give one of json, column, header")
        if self.columns and self.column not in self.columns:
            raise ValueError("columns must hold the column")
        return self

    def redaction(self, key: bytes | None, where: str) -> Redaction:
        """As the recorder needs it; ConfigError for a path that is none, or an hmac without a key."""
        if self.action == "hmac" and not key:
            raise ConfigError("--redaction-key", f"is missing, and {where} uses hmac", "Give a file with a secret.")
        hiding = Hiding(self.action, key or b"")
        if self.header is not None:
            return Redaction(self.scope(), HeaderTarget(HEADERS[self.header], self.header, hiding))
        sides = _SIDES[self.side]
        if self.json_path is not None:
            steps = jsonpath.parse(self.json_path, f"{where}.json")
            return Redaction(self.scope(), Target(hiding, sides, self.json_path.lstrip("$.") or "$", steps))
        name = self.column or ""
        return Redaction(self.scope(), Target(hiding, sides, name, (), name, tuple(self.columns)))


class RulesDocument(_Strict):
    """The whole file."""

    version: Literal[1]
    log: bool = Field(True, description="False: nothing is logged, all is counted as not_logged.")
    select: list[SelectRule] = Field([], max_length=256)
    redact: list[RedactRule] = Field([], max_length=256)


def _statuses(status: str | int | None) -> tuple[range, ...]:
    if status is None:
        return ()
    text = str(status)
    if text.endswith("xx"):
        return (range(int(text[0]) * 100, int(text[0]) * 100 + 100),)
    first, _, last = text.partition("-")
    return (range(int(first), int(last or first) + 1),)


def schema() -> dict[str, Any]:
    """The JSON Schema of the file."""
    return RulesDocument.model_json_schema()


def parse(text: str, key: bytes | None = None, where: str = "--rules") -> Rules:
    """The rules of a file's text; ConfigError names the key at fault and never repeats a value."""
    if len(text) > SIZE_LIMIT:
        raise ConfigError(where, f"has more than {SIZE_LIMIT} characters", "Write fewer rules.")
    try:
        document = RulesDocument.model_validate(yaml.safe_load(text) or {})
    except yaml.YAMLError as error:
        raise ConfigError(where, "is not YAML", "Begin with `version: 1`.") from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{where}: {place}".rstrip(": "), first["msg"], "See the README for the keys.") from None
    redactions = [rule.redaction(key, f"{where}: redact.{i}") for i, rule in enumerate(document.redact)]
    return Rules(document.log, [rule.selection() for rule in document.select], redactions, key or b"")


def read_key(path: Path | None) -> bytes | None:
    """The secret in a file, without the line's end; ConfigError if it is missing or too short."""
    if path is None:
        return None
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError("--redaction-key", f"cannot read {path} ({error.strerror})", "Mount the secret.") from error
    if len(key) < _KEY_BYTES:
        raise ConfigError("--redaction-key", f"holds fewer than {_KEY_BYTES} bytes", "Give a longer secret.")
    return key


class RulesFile:
    """The rules of a file as it is now. A wrong change is told and counted once; the last good ones stay."""

    def __init__(
        self,
        path: Path,
        key_file: Path | None = None,
        on_error: Callable[[Exception], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        every: float = 1.0,
    ) -> None:
        self._path, self._key, self._on_error = path, read_key(key_file), on_error
        self._clock, self._every, self._looked = clock, every, clock()
        try:
            self._mark = self._stamp()
            self._rules = self._read()
        except OSError as error:
            raise ConfigError("--rules", f"cannot read {path} ({error.strerror})", "Give a readable file.") from error

    def current(self) -> Rules:
        """Looks at the file at most every `every` seconds."""
        now = self._clock()
        if now - self._looked >= self._every:
            self._looked = now
            self._look()
        return self._rules

    def _look(self) -> None:
        try:
            mark = self._stamp()
            if mark == self._mark:
                return
            self._mark = mark
            self._rules = self._read()
            log.info("rules read again")
        except FileNotFoundError:
            return  # between two versions of a mounted file
        except (ConfigError, OSError) as error:
            log.error("rules left as they were", extra={"problem": str(error)})  # noqa: TRY400  it says what to do
            self._on_error(error)

    def _read(self) -> Rules:
        return parse(self._path.read_text(), self._key)

    def _stamp(self) -> tuple[int, int, int]:
        found = self._path.stat()  # through the symlinks of a mounted ConfigMap
        return found.st_mtime_ns, found.st_size, found.st_ino
