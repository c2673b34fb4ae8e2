"""The rules as an operator writes them: YAML, checked whole, read again when the file changes.

Apart from `rules`, which needs no pydantic: a logger without `--rules` never imports this. `schema()` is the JSON
Schema of the file, for editors and CI. Replace the file, as Kubernetes does with a mounted one, rather than write in
it: half a file may be valid, and hide less.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from logger import jsonpath, strictyaml
from logger.hiding import Hiding
from logger.reread import EVERY, SIZE_LIMIT, Reread
from logger.rules import NO_RULES, HeaderTarget, Redaction, Rules, Scope, Selection
from logger.targets import Target
from servelens.contract.errors import ConfigError
from servelens.contract.events import Side

_KEY_BYTES: Final = 16
# Headers that are kept at all, and where.
HEADERS: Final = {
    "x-request-id": "requestid",
    "ce-id": "requestid",
    "traceparent": "traceparent",
    "content-type": "content_type",
}
Name = Annotated[str, Field(min_length=1, max_length=256)]
_On = Literal["request", "response", "both"]
_SIDES: Final[dict[_On, frozenset[Side]]] = {
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

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if any(not span for span in _statuses(self.status)):
            raise ValueError("the range of status must not end before it begins")
        return self

    def selection(self) -> Selection:
        """As the recorder needs it."""
        return Selection(self.scope(self.method), self.sample, _statuses(self.status), self.log)


class RedactRule(_Scoped):
    """One of `json`, `column`, `header`, and what is done with it."""

    json_path: str | None = Field(None, alias="json", description="As $.instances[*].ssn.")
    column: Name | None = None
    columns: list[Name] = Field([], description="All columns in order, where rows are lists or packed tensors.")
    header: Literal["x-request-id", "ce-id", "traceparent", "content-type"] | None = None
    on: _On | None = Field(None, description="Which bodies; both, if neither on nor side is given.")
    side: _On | None = Field(None, description="The same as on, for tools of YAML 1.1, where on means true.")
    action: Literal["drop", "mask", "hmac"]

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if sum(value is not None for value in (self.json_path, self.column, self.header)) != 1:
            raise ValueError("give one of json, column, header")
        if self.columns and self.columns.count(self.column or "") != 1:
            raise ValueError("columns must hold the column once")
        if self.on and self.side:
            raise ValueError("give on or side")
        if (self.on or self.side) and self.header is not None:
            raise ValueError("a header has no on or side")
        return self

    def redaction(self, key: bytes | None, where: str) -> Redaction:
        """As the recorder needs it; ConfigError for a path that is none, or an hmac without a key."""
        if self.action == "hmac" and not key:
            raise ConfigError("--redaction-key", f"is missing, and {where} uses hmac", "Give a file with a secret.")
        hiding = Hiding(self.action, key or b"")
        if self.header is not None:
            return Redaction(self.scope(), HeaderTarget(HEADERS[self.header], self.header, hiding))
        sides = _SIDES[self.on or self.side or "both"]
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
        raise ConfigError(where, f"has more than {SIZE_LIMIT} bytes", "Write fewer rules.")
    try:
        loaded = strictyaml.load(text)
    except ValueError as error:
        raise ConfigError(where, str(error), "Begin with `version: 1`, and write each key once.") from None
    try:
        document = RulesDocument.model_validate({} if loaded is None else loaded)
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
    """The rules of a file as it is now; without a path there are none."""

    def __init__(
        self,
        path: Path | None,
        key_file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        every: float = EVERY,
        on_error: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        key = read_key(key_file)
        self._file = path and Reread(path, lambda text: parse(text, key), "--rules", clock, every, on_error)

    def current(self) -> Rules:
        """The rules in force."""
        return self._file.current() if self._file else NO_RULES
