"""The rules file: what it may say, what is refused, and when a change is taken up."""

import os
from pathlib import Path

import jsonschema
import pytest
import yaml

from logger import rulesfile
from logger.rules import Rules
from logger.rulesfile import RulesFile
from servelens.contract.errors import ConfigError
from servelens.contract.events import Exchange, Half
from servelens.contract.identity import new_exchange_id

FULL = """
version: 1
log: true
select:
  - {path: "/v1/*", method: POST, status: 5xx}
  - {status: 200-299, sample: 0.5}
  - {status: 404, log: false}
  - {model: "m*", sample: 0.0}
redact:
  - {json: "$.instances[*].card", on: request, action: mask}
  - {column: ssn, columns: [age, ssn], side: both, model: m, action: hmac}
  - {header: traceparent, path: "/v2/*", action: drop}
"""
KEY = b"0123456789abcdef"


def exchange(
    path: str = "/v1/models/m:predict", status: int = 200, body: bytes = b"{}", answer: bytes = b""
) -> Exchange:
    halves = [Half(raw, len(raw), content_type="application/json") for raw in (body, answer)]
    return Exchange(
        new_exchange_id(), 0, method="POST", path=path, status=status, request=halves[0], response=halves[1]
    )


def test_a_full_file_is_taken_by_the_parser_and_by_its_schema() -> None:
    made = Rules.parse(FULL, KEY)
    jsonschema.Draft202012Validator.check_schema(rulesfile.schema())
    jsonschema.validate(yaml.safe_load(FULL.replace("on: request", "'on': request")), rulesfile.schema())
    fates = [made.treat(exchange(path, status)) for path, status in (("/v1/x", 503), ("/v1/x", 404))]
    assert [one if isinstance(one, str) else "kept" for one in fates] == ["kept", "filtered"]
    assert made.treat(exchange("/v2/models/m/infer", 301)) == "sampled"
    found = {one if isinstance(one, str) else one.samplerate for one in (made.treat(exchange()) for _ in range(60))}
    assert found == {"sampled", 0.5}


@pytest.mark.parametrize("word", ["on", "side"])
def test_a_rule_may_be_for_one_side(word: str) -> None:
    given = exchange(body=b'{"instances":[{"a":"x"}]}', answer=b'{"predictions":[{"a":"x"}]}')
    found = Rules.parse(f"version: 1\nredact: [{{column: a, {word}: response, action: mask}}]").treat(given)
    assert isinstance(found, Exchange)
    assert found.redacted == ("response.predictions.a",)
    assert found.request == given.request


@pytest.mark.parametrize("rule", ["{sample: 0}", "{sample: 0.0}"])
def test_a_rate_of_zero_is_sampling_and_not_a_filter(rule: str) -> None:
    assert Rules.parse(f"version: 1\nselect: [{rule}]").treat(exchange()) == "sampled"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("version: 1\nredact: [{column: a, action: mask}]\nredact: []", "key twice"),
        ("version: 1\nredact: [{column: a, column: b, action: mask}]", "key twice"),
        ("version: 1\nselect: [{status: 500-400}]", "select.0: .*range"),
        ("version: 1\nselect: [{sample: .nan}]", "select.0.sample"),
        ("version: 1\nredact: [{column: a, columns: [a, a], action: mask}]", "redact.0: .*once"),
        ("version: 1\nredact: [{column: a, on: request, side: request, action: mask}]", "redact.0: .*on or side"),
        ("version: 1\nredact: [{header: traceparent, on: request, action: mask}]", "redact.0: .*on or side"),
        ("version: 2001-99-99", "version"),
        ("version: !!timestamp x", "not YAML"),
        ("version: !!int x", "not YAML"),
        ("version: 1\n? [a]\n: b", "not YAML"),
        ("version: &a [*a]", "version"),
        ("[" * 5000, "not YAML"),
        ("- 1", "--rules"),
        ("", "version"),
    ],
)
def test_what_is_refused_is_a_config_error(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Rules.parse(text)


@pytest.mark.parametrize("word", ["false", "off", "no"])
def test_the_kill_switch_is_no_less_off_in_older_spellings(word: str) -> None:
    assert Rules.parse(f"version: 1\nlog: {word}").treat(exchange()) == "not_logged"


class Watched:
    """A rules file, its clock in our hand."""

    def __init__(self, folder: Path, text: str = "version: 1") -> None:
        self.now, self.errors, self.path = 0.0, list[Exception](), folder / "rules.yaml"
        self.path.write_text(text)
        self.file = RulesFile(self.path, None, lambda: self.now, on_error=self.errors.append)

    def fate(self, after: float = 2.0) -> str:
        self.now += after
        found = self.file.current().treat(exchange())
        return found if isinstance(found, str) else "kept"


def test_without_a_file_there_are_no_rules() -> None:
    given = exchange()
    assert RulesFile(None, None).current().treat(given) is given


def test_a_change_is_looked_for_once_in_a_while(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.path.write_text("version: 1\nlog: false")
    assert [watched.fate(0.6), watched.fate(0.6)] == ["kept", "not_logged"]


def test_a_file_of_the_same_size_and_time_is_known_by_its_inode(tmp_path: Path) -> None:
    watched = Watched(tmp_path, "version: 1\nlog: true ")
    before = watched.path.stat()
    other = tmp_path / "new"
    other.write_text("version: 1\nlog: false")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(watched.path)
    assert watched.fate() == "not_logged"


def test_a_wrong_change_is_told_once_and_a_right_one_after_it_is_taken(tmp_path: Path) -> None:
    watched = Watched(tmp_path, "version: 1\nlog: false")
    for wrong in (b"version: 1\nlog: \xff", b"version: 1\nlogs: true", b"version: 1\n" + b"#" * (1 << 20)):
        watched.path.write_bytes(wrong)
        assert [watched.fate(), watched.fate()] == ["not_logged"] * 2
    assert [type(error) for error in watched.errors] == [ConfigError] * 3
    watched.path.unlink()
    assert watched.fate() == "not_logged"
    watched.path.write_text("version: 1")
    assert watched.fate() == "kept"
    assert len(watched.errors) == 3


@pytest.mark.parametrize("wrong", [b"version: 1\nlog: \xff", b"version: 2"])
def test_a_wrong_file_at_the_start_is_a_config_error(tmp_path: Path, wrong: bytes) -> None:
    (tmp_path / "rules.yaml").write_bytes(wrong)
    with pytest.raises(ConfigError, match="--rules"):
        RulesFile(tmp_path / "rules.yaml", None)
