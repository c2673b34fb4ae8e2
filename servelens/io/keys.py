"""Secrets from mounted files: never from a flag or the environment, where they would show in a process list."""

from pathlib import Path

from servelens.contract.errors import ConfigError


def read_key(path: Path, setting: str = "--synthetic-key") -> bytes:
    """The file's bytes without surrounding white space; ConfigError if there are none."""
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        problem = f"{path} cannot be read ({error.strerror})"
        raise ConfigError(setting, problem, "Mount the Secret there, or leave the flag out.") from error
    if not key:
        raise ConfigError(setting, f"{path} is empty", "Put a random key of 32 bytes or more into it.")
    return key
