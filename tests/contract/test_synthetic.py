import hashlib
import hmac
from pathlib import Path

import pytest

from servelens.contract.errors import ConfigError
from servelens.contract.synthetic import signer, verifier
from servelens.io.keys import read_key

KEY = b"0123456789abcdef"


def token(expiry: str, key: bytes = KEY) -> str:
    return f"{expiry}.{hmac.new(key, expiry.encode(), hashlib.sha256).hexdigest()}"


def test_a_token_is_valid_until_its_expiry() -> None:
    now = [1_700_000_000.0]
    valid = verifier(KEY, lambda: now[0])
    value = token("1700000060")
    assert valid(value)
    now[0] = 1_700_000_060.0
    assert valid(value)
    now[0] = 1_700_000_060.1
    assert not valid(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "true",
        ".",
        "1700000060",
        "1700000060.",
        token("1700000060", b"another"),
        token("1700000060")[:-1],
        token("1700000060") + "0",
        "1700000061." + token("1700000060").partition(".")[2],
        token("-1"),
        token("1e12"),
        token(" 1700000060"),
        token("９９９９９９９９９９"),
        token("9" * 13),
        token("1700000060").upper(),
        "1700000060.é",
    ],
)
def test_anything_else_is_not(value: str) -> None:
    assert not verifier(KEY, lambda: 1_700_000_000.0)(value)


def test_what_is_signed_is_valid_for_its_seconds() -> None:
    now = [1_700_000_000.0]
    value = signer(KEY, 60, lambda: now[0])()
    assert value == token("1700000060")
    assert verifier(KEY, lambda: now[0])(value)
    assert not verifier(b"another", lambda: now[0])(value)
    now[0] += 61
    assert not verifier(KEY, lambda: now[0])(value)


def test_the_key_is_the_file_without_its_white_space(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b" " + KEY + b"\n")
    assert read_key(path) == KEY


def test_a_key_that_is_not_there_or_empty_names_flag_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--synthetic-key.*cannot be read.*Mount"):
        read_key(tmp_path / "none")
    (tmp_path / "empty").write_bytes(b"\n")
    with pytest.raises(ConfigError, match=r"--synthetic-key.*is empty"):
        read_key(tmp_path / "empty")
