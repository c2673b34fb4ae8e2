"""How a setting is written: durations, sizes and addresses, and the order flag > environment > file > default.

Apart from the command line, since the same spellings stand in files; no I/O: environment and file text are given in.
An environment variable is `SERVELENS__` + command + `_` + flag, as in `SERVELENS__LOGGER_LISTEN`: with the double
underscore, for a Kubernetes Service called `servelens` injects `SERVELENS_PORT=tcp://…` into every pod.
"""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Final

import yaml

from servelens.contract.errors import ConfigError

ENV_PREFIX: Final = "SERVELENS__"
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_BYTES: Final = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def duration(text: str, setting: str) -> float:
    """`10s`, `250ms`, `15m`, `24h`, `30d` in seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text.strip())
    if not found:
        raise ConfigError(setting, f"{text!r} is no duration", "Write a number and ms, s, m, h or d, as in 10s.")
    return float(found[1]) * _SECONDS[found[2]]


def whole_seconds(text: str, setting: str) -> int:
    """A duration of at least one and only whole seconds."""
    seconds = duration(text, setting)
    if seconds < 1 or seconds != int(seconds):
        raise ConfigError(setting, f"{text!r} is not a whole number of seconds", "Write 1s or more.")
    return int(seconds)


def size(text: str, setting: str) -> int:
    """`512MiB`, `64KiB`, `1GiB` or plain bytes, in bytes."""
    found = re.fullmatch(r"(\d+)\s*(KiB|MiB|GiB|)", text.strip())
    if not found:
        raise ConfigError(setting, f"{text!r} is no size", "Write bytes, or a number and KiB, MiB or GiB.")
    return int(found[1]) * _BYTES[found[2]]


def address(text: str, setting: str) -> tuple[str, int]:
    """HOST:PORT."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise ConfigError(setting, f"{text!r} is no address", "Write HOST:PORT.")
    return host, int(port)


def check_environment(environ: Mapping[str, str], known: Iterable[str]) -> None:
    """Every variable under our prefix must be one we read."""
    names = set(known)
    for name in environ:
        if name.startswith(ENV_PREFIX) and name not in names:
            raise ConfigError(name, "is no setting", _remedy(name, names))


def check_file(text: str, where: str, known: Iterable[str]) -> dict[str, Any]:
    """A settings file: YAML, one mapping of flag names (without dashes before) to values; unknown keys are errors."""
    try:
        content = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(where, "is not YAML", "Write one `flag: value` a line.") from error
    if not isinstance(content, dict):
        raise ConfigError(where, "is not a mapping", "Write one `flag: value` a line.")
    names = set(known)
    for key in content:
        if key not in names:
            raise ConfigError(f"{where}: {key}", "is no setting", _remedy(str(key), names))
    return content


def _remedy(name: str, known: set[str]) -> str:
    close = get_close_matches(name, sorted(known), n=1)
    return f"Did you mean {close[0]}?" if close else f"Known are: {', '.join(sorted(known))}."
