"""What is logged of an exchange, and what is hidden in it, as one frozen value: `Rules.treat` is all a caller needs.

Apart from `rulesfile`, which reads it from YAML. Called by the recorder and the bridge before anything is stored. A
rule that applies and cannot be applied withholds the body: no fault of a payload lets a secret through or is raised.
The path of a request, and so the model's name, is stored as it is: put no secrets into paths.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from logger.document import is_answer
from logger.hiding import Hiding
from logger.redaction import redact
from logger.select import model_of
from logger.targets import Target, bounded, slot
from servelens.contract.errors import PayloadError
from servelens.contract.events import Exchange, Half, Side

_ERRORS: Final = 400
_HASH_BYTES: Final = 8
_WITHHELD: Final = "body"
_DEFAULT_KEY: Final = b"servelens sampling"
# What a body may still do to code that read it without a complaint; PayloadError is what it says of it.
_FAULTS: Final = (LookupError, TypeError, ValueError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which exchanges are meant; `path` and `model` are globs, an empty part means any."""

    path: str = ""
    model: str = ""
    method: str = ""

    def holds(self, path: str, model: str, method: str) -> bool:
        """Whether an exchange is meant, however its path is spelled."""
        return (
            (not self.path or any(fnmatchcase(text, self.path) for text in _spellings(path)))
            and (not self.model or fnmatchcase(model, self.model))
            and (not self.method or method == self.method)
        )

    def may_hold(self, path: str, model: str) -> bool:
        """The same, taking a path or model that is not known for the one that is meant."""
        known = Scope(self.path if path else "", self.model if model else "")
        return known.holds(path, model, "")


@dataclass(frozen=True, slots=True)
class Selection:
    """The share of the exchanges meant that is logged, by status too: `statuses` empty means any, and none.

    With `log` False none of them is, and they count as `filtered`.
    """

    scope: Scope
    sample: float = 1.0
    statuses: tuple[range, ...] = ()
    log: bool = True

    def holds(self, status: int | None) -> bool:
        """Whether a status is meant."""
        return not self.statuses or (status is not None and any(status in span for span in self.statuses))


@dataclass(frozen=True, slots=True)
class HeaderTarget:
    """One of the few headers that are kept: its `field` of Exchange, or `content_type` of a half."""

    field: str
    header: str
    hiding: Hiding


@dataclass(frozen=True, slots=True)
class Redaction:
    """A rule with its scope: it hides too much rather than too little where path or model is not known."""

    scope: Scope
    target: Target | HeaderTarget


class Rules:
    """`key` keys the hash that samples. Without arguments: everything is logged, nothing hidden."""

    def __init__(
        self,
        log: bool = True,
        select: Sequence[Selection] = (),
        redactions: Sequence[Redaction] = (),
        key: bytes = b"",
    ) -> None:
        self._log, self._key = log, key[:64] or _DEFAULT_KEY
        self._select, self._redactions = tuple(select), tuple(redactions)
        # Paths come from clients, so what is remembered of them is bounded.
        self._of = lru_cache(maxsize=1024)(self._meant)

    @classmethod
    def parse(cls, text: str, key: bytes | None = None, where: str = "--rules") -> "Rules":
        """The rules of a file's text; ConfigError names the key at fault. `key` is the secret of `hmac`."""
        from logger.rulesfile import parse  # pydantic's weight only where rules are

        return parse(text, key, where)

    @property
    def logs(self) -> bool:
        """Whether anything is to be logged at all."""
        return self._log

    @property
    def redacts(self) -> bool:
        """Whether anything is to be hidden."""
        return bool(self._redactions)

    def known_as(self, requestid: str) -> str | None:
        """A client's id as it may be stored apart from its exchange, whose path is not known; None if it may not be."""
        for target in (rule.target for rule in self._redactions):
            if isinstance(target, HeaderTarget) and target.field == "requestid":
                if target.hiding.action != "hmac":
                    return None
                requestid = target.hiding.text(requestid)
        return requestid

    def treat(self, exchange: Exchange, on_withheld: Callable[[str], None] = lambda _: None) -> Exchange | str:
        """The exchange as it may be stored, or the account's reason against it; never raises for what is in it.

        `on_withheld` is told why a body was left out.
        """
        if not self._log:
            return "not_logged"
        if not (self._select or self._redactions):
            return exchange
        model = exchange.identity.modelname or model_of(exchange.path)
        selections, targets, headers = self._of(exchange.path, model, exchange.method)
        chosen = next((rule for rule in selections if rule.holds(exchange.status)), None)
        if chosen is not None and not chosen.log:
            return "filtered"
        if chosen is not None and chosen.sample < 1.0:
            if self._drawn(exchange.exchangeid) >= chosen.sample:
                return "sampled"
            exchange = replace(exchange, samplerate=chosen.sample)
        return self._hidden(exchange, targets, headers, on_withheld) if targets or headers else exchange

    def _meant(
        self, path: str, model: str, method: str
    ) -> tuple[tuple[Selection, ...], tuple[Target, ...], tuple[HeaderTarget, ...]]:
        meant = [rule.target for rule in self._redactions if rule.scope.may_hold(path, model)]
        return (
            tuple(rule for rule in self._select if rule.scope.holds(path, model, method)),
            tuple(target for target in meant if isinstance(target, Target)),
            tuple(target for target in meant if isinstance(target, HeaderTarget)),
        )

    def _drawn(self, exchangeid: str) -> float:
        """A number in [0, 1) that no client chooses, the same for both halves of an exchange."""
        raw = blake2b(exchangeid.encode(), digest_size=_HASH_BYTES, key=self._key).digest()
        return int.from_bytes(raw) / (1 << 8 * _HASH_BYTES)

    def _hidden(
        self,
        exchange: Exchange,
        targets: Sequence[Target],
        headers: Sequence[HeaderTarget],
        on_withheld: Callable[[str], None],
    ) -> Exchange:
        slots = list[str]()
        if targets:
            changed: dict[str, Half | None] = {}
            for side in ("request", "response"):
                half: Half | None = getattr(exchange, side)
                changed[side] = half and _treated(half, side, exchange, targets, slots, on_withheld)
            exchange = replace(exchange, request=changed["request"], response=changed["response"])
        for header in headers:
            exchange = _without(exchange, header, slots)
        return replace(exchange, redacted=bounded((*exchange.redacted, *slots)))


NO_RULES: Final = Rules()


def rules_of(path: Path | None, key_file: Path | None, on_error: Callable[[Exception], None]) -> Callable[[], Rules]:
    """What gives the rules of a file as it is now; without a path there are none."""
    if path is None:
        return lambda: NO_RULES
    from logger.rulesfile import RulesFile  # pydantic's weight only where rules are

    return RulesFile(path, key_file, on_error=on_error).current


def _spellings(path: str) -> set[str]:
    """A path as it came, and as a server may read it: without authority, fragment, escapes and last slash."""
    plain = path.partition("#")[0]
    scheme, _, rest = plain.partition("://")
    if rest and scheme.isalpha():
        plain = "/" + rest.partition("/")[2]
    return {path, plain, unquote(plain), unquote(plain).rstrip("/")}


def _treated(
    half: Half,
    side: Side,
    exchange: Exchange,
    targets: Sequence[Target],
    slots: list[str],
    on_withheld: Callable[[str], None],
) -> Half:
    if not half.body:
        return half
    here = [target for target in targets if side in target.sides]
    why = "error_body" if side == "response" and _may_echo(exchange, half) else ""
    try:
        treated, changed = redact(half, side, here) if here and not why else (half, list[str]())
    except PayloadError as error:
        why = error.reason
    except _FAULTS:
        why = "failed"
    if why:
        on_withheld(why)
        slots.append(slot(side, _WITHHELD))
        return replace(half, body=b"", truncated=True, header_length=None, encoding="")
    slots += changed
    return treated


def _may_echo(exchange: Exchange, response: Half) -> bool:
    """Whether the answer is an error's, or may be: foreign events do not say their status."""
    if exchange.status is not None:
        return exchange.status >= _ERRORS
    return exchange.request is not None or not is_answer(response)


def _without(exchange: Exchange, target: HeaderTarget, slots: list[str]) -> Exchange:
    if target.field == "content_type":
        changes: Mapping[str, object] = {
            side: replace(half, content_type=target.hiding.text(half.content_type))
            for side, half in (("request", exchange.request), ("response", exchange.response))
            if half is not None and half.content_type
        }
    else:
        value = getattr(exchange, target.field)
        changes = {target.field: target.hiding.text(value)} if value else {}
        if target.field == "requestid" and exchange.sources:
            changes = {**changes, "sources": ()}  # foreign events are called after it
    if changes:
        slots.append(slot("request", "header", target.header))
    return replace(exchange, **changes)  # type: ignore[arg-type]
