"""The tokens file: who is let in, for which namespaces, and what is refused without repeating a token."""

from pathlib import Path

import pytest

from logger.tenants import admitted, parse, tenants_of
from servelens.contract.errors import ConfigError, Forbidden, Unauthorized

FIRST, SECOND, THIRD = "first-token-of-risk", "second-token-of-risk", "the-token-of-ops"
FILE = f"""
version: 1
tenants:
  risk: {{tokens: [{FIRST}, {SECOND}], namespaces: [shop, bank]}}
  ops: {{tokens: [{THIRD}]}}
"""


def test_a_token_is_its_tenants_and_no_other() -> None:
    tenants = parse(FILE)
    for token in (FIRST, SECOND):
        for name in ("risk", ""):
            assert admitted(tenants, name, token).name == "risk"
    for name, token in (("ops", FIRST), ("risk", THIRD), ("", ""), ("risk", ""), ("risk", FIRST[:-1]), ("nobody", "")):
        with pytest.raises(Unauthorized):
            admitted(tenants, name, token)


def test_a_tenant_speaks_for_its_namespaces() -> None:
    tenants = parse(FILE)
    admitted(tenants, "risk", FIRST).check("bank")
    admitted(tenants, "ops", THIRD).check("anything")
    for namespace in ("", "other"):
        with pytest.raises(Forbidden):
            admitted(tenants, "risk", FIRST).check(namespace)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ("", "file"),
        ("version: 2\ntenants: {}", "file"),
        ("version: 1\ntenants: {}", "tenants"),
        ("version: 1\ntenants: [a]", "tenants"),
        (FILE.replace("risk:", "'ri/sk':"), "tenants"),
        (FILE.replace(FIRST, "short"), "tenants.risk.tokens"),
        (FILE.replace(FIRST, "has-a-slash/in-the-token"), "tenants.risk.tokens"),
        (FILE.replace(f"[{FIRST}, {SECOND}]", "[]"), "tenants.risk.tokens"),
        (FILE.replace(THIRD, FIRST), "tenants.ops.tokens"),
        (FILE.replace("[shop, bank]", "shop"), "tenants.risk.namespaces"),
        (FILE.replace("namespaces", "namespace"), "tenants.risk"),
        (FILE + "  risk: {}", "file"),
    ],
)
def test_a_wrong_file_is_told_by_field_and_without_its_tokens(wrong: str, field: str) -> None:
    with pytest.raises(ConfigError, match=field) as caught:
        parse(wrong)
    assert caught.value.setting == "--tokens"
    assert not any(token in str(caught.value) for token in (FIRST, SECOND, THIRD, "short"))


def test_a_change_is_taken_up_and_a_wrong_one_is_not(tmp_path: Path) -> None:
    path, errors = tmp_path / "tokens.yaml", list[Exception]()
    path.write_text(FILE)
    file = tenants_of(path, every=0, on_error=errors.append)
    path.write_text(FILE.replace(FIRST, "another-token-of-risk"))
    assert admitted(file.current(), "risk", "another-token-of-risk").name == "risk"
    with pytest.raises(Unauthorized):
        admitted(file.current(), "risk", FIRST)
    path.write_text("version: 1")
    assert admitted(file.current(), "risk", SECOND).name == "risk"
    assert len(errors) == 1
    path.unlink()
    assert admitted(file.current(), "risk", SECOND).name == "risk"
