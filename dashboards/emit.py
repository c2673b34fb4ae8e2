"""The one pass between grafanalib and a file: current schema, no dead keys, no nulls, stable order.

grafanalib writes schemaVersion 12, under which Grafana migrates on load and drops `graphTooltip`; and every unset field
as null, which strict readers refuse. No dashboard is touched anywhere else after it was made.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import grafanalib.core as grafana
from grafanalib._gen import DashboardEncoder

SCHEMA: Final = 41
# grafanalib's older fields, which no supported Grafana reads.
_DEAD_ON_BOARDS: Final = ("__inputs", "gnetId", "hideControls", "rows", "sharedCrosshair", "style")
_DEAD_ON_PANELS: Final = ("cacheTimeout", "editable", "error", "height", "hideTimeOverride", "minSpan", "span")
_ROW: Final = ("type", "title", "collapsed", "gridPos", "id", "panels")
_NULL_MEANS: Final = frozenset({"value"})  # a threshold's base is null


def emit(dashboard: grafana.Dashboard) -> str:
    """The dashboard's JSON, sorted, as it is provisioned from a file."""
    whole: dict[str, Any] = _without_nulls(json.loads(json.dumps(dashboard.to_json_data(), cls=DashboardEncoder)))
    for key in _DEAD_ON_BOARDS:
        whole.pop(key, None)
    whole |= {"schemaVersion": SCHEMA, "timepicker": {}, "version": 1, "fiscalYearStartMonth": 0, "weekStart": ""}
    whole["panels"] = [_panel(panel) for panel in whole["panels"]]
    whole["links"] = [_link(link) for link in whole["links"]]
    return json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _panel(panel: Mapping[str, Any]) -> dict[str, Any]:
    if panel["type"] == "row":
        return {"collapsed": False, "panels": []} | {key: value for key, value in panel.items() if key in _ROW}
    return {key: value for key, value in panel.items() if key not in _DEAD_ON_PANELS and value not in ([], "")}


def _link(link: Mapping[str, Any]) -> dict[str, Any]:
    empty = {"icon": "external link", "tooltip": "", "url": "", "targetBlank": False}
    return empty | {key: value for key, value in link.items() if key not in ("dashboard", "dashUri")}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None or key in _NULL_MEANS}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
