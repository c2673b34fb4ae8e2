"""The generated dashboards: what Grafana's types, its SDK and good practice ask of them; and that dist/ is fresh."""

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from jsonschema import Draft7Validator
from promql_reading import selectors, within_rate

from dashboards.build import BOARDS, build, files
from dashboards.emit import SCHEMA
from dashboards.promql import labels
from servelens.contract.errors import ConfigError
from servelens.contract.metrics import CATALOGUE

ROOT = Path(__file__).parent.parent.parent
SCHEMAS = Path(__file__).parent / "schemas"
DIST = ROOT / "dashboards" / "dist"
FOREIGN = {"ALERTS": {"alertname", "alertstate"}}  # Prometheus' own

MADE = {name: json.loads(files()[f"grafana/servelens-{name}.json"]) for name in BOARDS}


@pytest.fixture(params=list(BOARDS))
def board(request: pytest.FixtureRequest) -> dict[str, Any]:
    made: dict[str, Any] = MADE[request.param]
    return made


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def expressions(board: dict[str, Any]) -> Iterator[str]:
    for panel in panels(board):
        yield from (target["expr"] for target in panel["targets"])
    yield from (one["expr"] for one in board["annotations"]["list"])


def faults(name: str, value: Any, definition: str = "") -> list[str]:
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    if definition:
        schema = {"$ref": f"#/definitions/{definition}", "definitions": schema["definitions"]}
    return [f"{error.json_path}: {error.message[:200]}" for error in Draft7Validator(schema).iter_errors(value)]


def test_strict_schemas_find_nothing(board: dict[str, Any]) -> None:
    assert faults("dashboard", board) == []
    for panel in panels(board):
        assert faults(f"options_{panel['type']}", panel["options"]) == [], panel["title"]
        custom = panel["fieldConfig"]["defaults"].get("custom")
        assert custom is None or faults(f"fieldconfig_{panel['type']}", custom) == [], panel["title"]


def test_overrides_set_what_exists(board: dict[str, Any]) -> None:
    """The schema leaves `{id, value}` open; here each is checked as the default it overrides."""
    for panel in panels(board):
        for override in panel["fieldConfig"].get("overrides", []):
            for one in override["properties"]:
                if one["id"].startswith("custom."):
                    custom = {"cellOptions": {"type": "auto"}, one["id"].removeprefix("custom."): one["value"]}
                    assert faults(f"fieldconfig_{panel['type']}", custom) == []
                else:
                    assert faults("dashboard", {one["id"]: one["value"]}, "FieldConfig") == []


def test_the_schemas_would_find_something(board: dict[str, Any]) -> None:
    for spoil in (
        lambda one: one.update(rows=[]),
        lambda one: panels(one)[0].update(span=4),
        lambda one: panels(one)[0]["targets"][0].update(step=10),
        lambda one: panels(one)[0]["fieldConfig"]["defaults"]["thresholds"]["steps"][0].update(value="null"),
    ):
        spoilt = json.loads(json.dumps(board))
        spoil(spoilt)
        assert faults("dashboard", spoilt)


def lost(before: Any, after: Any, path: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from lost(value, after[key], f"{path}.{key}") if key in after else [f"{path}.{key}"]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for at, (left, right) in enumerate(zip(before, after, strict=True)):
            yield from lost(left, right, f"{path}[{at}]")
    elif before != after:
        yield f"{path}: {before!r} != {after!r}"


# What Grafana reads of annotations and variables and its SDK's types do not list.
UNLISTED = re.compile(
    r"\.annotations\.list\[\d+\]\.(titleFormat|textFormat|step|useValueForTime)|\.templating\.list\[\d+\]\.definition"
)


def test_the_sdk_reads_and_writes_it_without_loss(board: dict[str, Any]) -> None:
    plugins.register_default_plugins()
    again = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(board)))
    assert [path for path in lost(board, again) if not UNLISTED.fullmatch(path)] == []


def test_it_is_current_and_stable(board: dict[str, Any]) -> None:
    assert board["schemaVersion"] == SCHEMA >= 39
    assert re.fullmatch(r"servelens-[a-z]+", board["uid"])
    assert "id" not in board
    assert board["graphTooltip"] == 1
    assert board["tags"] == ["servelens"]
    assert "null" not in json.dumps([{k: v for k, v in one.items() if k != "fieldConfig"} for one in board["panels"]])
    assert len(json.dumps(board)) < 900_000


def test_variables_are_chained_and_refreshed(board: dict[str, Any]) -> None:
    source, *others = board["templating"]["list"]
    assert (source["name"], source["type"]) == ("datasource", "datasource")
    assert [one["name"] for one in others] == ["namespace", "inferenceservice"]
    for at, one in enumerate(others):
        assert one["refresh"] == 2
        assert one["multi"]
        assert one["current"]["value"] == ["$__all"]
        assert all(f"${name}" in one["query"]["query"] for name in [other["name"] for other in others][:at])


def test_every_panel_says_what_it_shows_and_in_what_unit(board: dict[str, Any]) -> None:
    titles = [panel["title"] for panel in panels(board)]
    assert len(set(titles)) == len(titles)
    for panel in panels(board):
        assert len(panel["description"]) > 10
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_panels_lie_side_by_side(board: dict[str, Any]) -> None:
    boxes = [panel["gridPos"] for panel in board["panels"]]
    assert len({panel["id"] for panel in board["panels"]}) == len(boxes)
    assert all(box["x"] >= 0 and box["x"] + box["w"] <= 24 for box in boxes)
    for left, right in combinations(boxes, 2):
        apart_x = left["x"] + left["w"] <= right["x"] or right["x"] + right["w"] <= left["x"]
        apart_y = left["y"] + left["h"] <= right["y"] or right["y"] + right["h"] <= left["y"]
        assert apart_x or apart_y


def test_every_series_and_label_is_in_the_catalogue(board: dict[str, Any]) -> None:
    seen = 0
    for expression in expressions(board):
        for name, matchers in selectors(expression):
            known = FOREIGN.get(name) or set(labels(name))
            assert {label for label, _, _ in matchers} <= known, expression
            seen += 1
    assert seen > 15


def test_counters_are_rated_over_the_panels_interval_or_summed_as_totals(board: dict[str, Any]) -> None:
    for panel in panels(board):
        for target in panel["targets"]:
            rated = within_rate(target["expr"])
            for name, _ in selectors(target["expr"]):
                metric = CATALOGUE.get(name)
                total_now = panel["type"] == "stat" and name not in rated
                if metric is not None and metric.kind == "counter" and not total_now:
                    assert name in rated, target["expr"]


def test_variables_are_matched_as_patterns(board: dict[str, Any]) -> None:
    for expression in expressions(board):
        for used in re.findall(r'(\S+?)"\$(?:namespace|inferenceservice)"', expression):
            assert used.endswith("=~")


def test_links_lead_to_dashboards_that_exist() -> None:
    uids = {board["uid"] for board in MADE.values()}
    links = set(re.findall(r"/d/([\w-]+)", json.dumps(list(MADE.values()))))
    assert links
    assert links <= uids


def test_every_metric_of_the_catalogue_is_on_some_dashboard() -> None:
    shown = {name for board in MADE.values() for one in expressions(board) for name, _ in selectors(one)}
    bases = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown} | shown
    ours = {name for name in CATALOGUE if name.startswith("servelens_")}  # the others are the same numbers again
    assert ours - bases == {
        "servelens_build_info",
        "servelens_task_errors_total",
        "servelens_logger_withheld_total",
        "servelens_spans_total",
    }


def test_dist_is_what_would_be_built(tmp_path: Path) -> None:
    build(tmp_path)
    built = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    there = {str(path.relative_to(DIST)): path.read_text() for path in DIST.rglob("*") if path.is_file()}
    assert built == there, "stale: run servelens dashboards build --out dashboards/dist"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--out: cannot write"):
        build(tmp_path / "file")
