"""Who may send to the bridge, as the operator writes it: tenants, their tokens, and the namespaces they speak for.

KServe's agent sends no header of ours, so a token may stand in the path it posts to: nothing of a path is ever logged.
Tokens are kept and compared as digests. Called by the bridge's reception.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from logger import strictyaml
from logger.reread import Reread
from servelens.contract.errors import ConfigError, Forbidden, Unauthorized

SETTING: Final = "--tokens"
LEAST: Final = 16  # characters of a token
_FIELDS: Final = frozenset({"tokens", "namespaces"})


@dataclass(frozen=True, slots=True)
class Tenant:
    """A sender. `namespaces` it may speak for; none named: any."""

    name: str
    namespaces: frozenset[str] = frozenset()

    def check(self, namespace: str) -> None:
        """Forbidden if an event or label of that namespace is not this tenant's to send."""
        if self.namespaces and namespace not in self.namespaces:
            raise Forbidden("namespace: not one this token may send for")


ANYBODY: Final = Tenant("")
Tenants = Mapping[bytes, Tenant]  # digest of a token → whose it is


def admitted(tenants: Tenants, name: str, token: str) -> Tenant:
    """Whose token it is; Unauthorized if nobody's, or not that of `name`, where one is given."""
    found = tenants.get(_digest(token))
    if found is None or (name and found.name != name):
        raise Unauthorized("token: missing or not a known one; send it as /TENANT/TOKEN or as Authorization: Bearer")
    return found


def tenants_of(path: Path, **options: Any) -> Reread[Tenants]:
    """The tenants of a file, read again when it changes; `options` are `Reread`'s."""
    return Reread(path, parse, SETTING, **options)


def parse(text: str) -> Tenants:
    """The tenants of a file's text; ConfigError names the field, and never repeats a token."""
    try:
        found = strictyaml.load(text)
    except ValueError as error:
        raise _wrong("file", str(error)) from None
    if not isinstance(found, dict) or set(found) != {"version", "tenants"} or found["version"] != 1:
        raise _wrong("file", "is not `version: 1` and `tenants:`")
    if not isinstance(found["tenants"], dict) or not found["tenants"]:
        raise _wrong("tenants", "is not an object with a tenant or more")
    made: dict[bytes, Tenant] = {}
    for name, one in found["tenants"].items():
        tenant, tokens = _tenant(name, one)
        for token in tokens:
            if made.setdefault(_digest(token), tenant) is not tenant:
                raise _wrong(f"tenants.{name}.tokens", "has a token of another tenant")
    return made


def _tenant(name: Any, one: Any) -> tuple[Tenant, list[str]]:
    if not isinstance(name, str) or (not name.isidentifier() and not name.replace("-", "").isalnum()):
        raise _wrong("tenants", "has a name that is not letters, digits and hyphens")
    if not isinstance(one, dict) or not set(one) <= _FIELDS:
        raise _wrong(f"tenants.{name}", "is not an object of tokens and namespaces")
    tokens, namespaces = one.get("tokens"), one.get("namespaces", [])
    if not _texts(tokens) or not tokens or any(len(t) < LEAST or not t.isascii() or "/" in t for t in tokens):
        raise _wrong(f"tenants.{name}.tokens", f"is not a list of tokens of {LEAST} ASCII characters without a slash")
    if not _texts(namespaces):
        raise _wrong(f"tenants.{name}.namespaces", "is not a list of names")
    return Tenant(name, frozenset(namespaces)), tokens


def _texts(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(one, str) and one for one in found)


def _wrong(field: str, problem: str) -> ConfigError:
    return ConfigError(SETTING, f"{field} {problem}", "Correct the file.")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
