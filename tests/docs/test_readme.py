"""The README against the code: its commands, topics, attributes, map and settings exist as it says."""

import re
import shlex
import subprocess
from pathlib import Path

import typer

from dashboards.alerts import ALERTS
from dashboards.build import BOARDS
from explainers.answers import DECLARED
from explainers.artifact import parse_explainer
from logger import tenants
from logger.rules import Rules
from servelens.cli import app
from servelens.contract.attributes import _FIELDS, _IDENTITY
from servelens.contract.schema import parse_model
from servelens.contract.topics import group_topics, shared_topics

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_its_make_targets_exist() -> None:
    targets = re.findall(r"(?:^|[`(])make ([a-z-]+)", README, re.MULTILINE)
    assert {"demo", "test", "tools"} <= set(targets)
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_its_commands_and_flags_exist() -> None:
    commands = [
        line
        for block in blocks("sh")
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("servelens")
    ]
    assert len(commands) == 13
    for line in commands:
        words = shlex.split(line)[1:]
        node = typer.main.get_command(app)
        while words and words[0] in getattr(node, "commands", {}):
            node = node.commands[words.pop(0)]  # type: ignore[attr-defined]
        known = {option for parameter in node.params for option in parameter.opts}
        flags = [word for word in words if word.startswith("--")]
        assert words
        assert set(flags) <= known, line


def test_its_model_file_is_valid() -> None:
    (text,) = blocks("yaml")
    assert parse_model(text).predictions[0].name == "score"


def test_its_rules_and_its_tenants_are_valid() -> None:
    (text,) = blocks("yaml rules")
    assert Rules.parse(text, b"0123456789abcdef").redacts
    (text,) = blocks("yaml tenants")
    assert [tenant.name for tenant in tenants.parse(text).values()] == ["risk"]


def test_its_explainer_file_is_valid() -> None:
    (text,) = blocks("yaml explainer")
    assert [section.name for section in parse_explainer(text).methods] == ["permutation_shap", "anchor_tabular"]


def test_every_explain_tensor_is_in_its_table() -> None:
    for name, *_ in DECLARED:
        assert f"`{name}`" in README


def test_every_dashboard_is_in_its_table() -> None:
    table = README.partition("| dashboard | answers |")[2].split("\n\n")[0]
    assert table.count("\n| ") == len(BOARDS)
    words = {14: "fourteen"}[len(ALERTS)]
    assert f"{words} alert rules" in README


def test_every_topic_is_in_its_table() -> None:
    for spec in (*shared_topics("<prefix>", 4), *group_topics("<prefix>", 4, "<group>")):
        assert f"| `{spec.name}` |" in README


def test_every_attribute_is_in_its_table() -> None:
    for name in (*(row[0] for row in _FIELDS), *(row[0] for row in _IDENTITY), "requestlength", "responseheaderlength"):
        assert re.search(rf"\b{name}\b", README), name


def test_its_map_is_the_tree() -> None:
    tree = README.partition("## Map")[2].split("```")[1]
    folders = re.findall(r"^(\w+)/", tree, re.MULTILINE)
    assert folders
    assert all((ROOT / folder).is_dir() for folder in folders)
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    top = {line.split("/")[0] for line in tracked.splitlines() if "/" in line and not line.startswith(".")}
    assert top <= set(folders)


def test_no_module_is_too_long() -> None:
    long = [
        (path, count)
        for room in ("servelens", "logger", "detectors", "explainers", "dashboards")
        for path in (ROOT / room).rglob("*.py")
        if (count := len(path.read_text().splitlines())) > 350
    ]
    assert long == []
