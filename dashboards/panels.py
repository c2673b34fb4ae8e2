"""Panels as Grafana 11 to 13 store them: small subclasses of grafanalib's, whose own are for older ones.

grafanalib 0.7.1 emits options of the Angular panels (Heatmap), a string "null" for a threshold's base, and targets with
dead keys; the subclasses here emit what the panels read now. `emit` takes the rest away. Every panel has a unit, a
description and a datasource variable.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import attr
import grafanalib.core as grafana

DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"
attrs: Any = attr.s  # typed as Any: the checker would look for grafanalib's fields in our classes alone
_TOOLTIP: Final = {"mode": "multi", "sort": "desc"}
_REDUCE: Final = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_HIDE: Final = {"legend": False, "tooltip": False, "viz": False}


@attrs
class Query(grafana.Target):  # type: ignore[misc]  # grafanalib has no types
    """A Prometheus query."""

    def to_json_data(self) -> dict[str, Any]:
        """What Grafana's Prometheus datasource reads."""
        return {
            "refId": self.refId,
            "datasource": DATASOURCE,
            "expr": self.expr,
            "format": self.format,
            "legendFormat": self.legendFormat or "__auto",
            "instant": self.instant,
            "range": not self.instant,
            "editorMode": "code",
        }


@dataclass(frozen=True, slots=True)
class Step:
    """From `value` up (None = from the lowest) the panel is `color`."""

    color: str
    value: float | None = None

    def to_json_data(self) -> dict[str, Any]:
        """A threshold step."""
        return {"color": self.color, "value": self.value}


@attrs
class Panel(grafana.Panel):  # type: ignore[misc]  # grafanalib has no types
    """A panel of any type: its options, defaults of its fields, and their custom part."""

    kind: str = attr.ib(default="timeseries")
    options: Mapping[str, Any] = attr.ib(factory=dict)
    defaults: Mapping[str, Any] = attr.ib(factory=dict)
    custom: Mapping[str, Any] = attr.ib(factory=dict)
    overrides: Sequence[Mapping[str, Any]] = attr.ib(factory=list)
    width: int = attr.ib(default=12)
    tall: int = attr.ib(default=8)

    def to_json_data(self) -> dict[str, Any]:
        """The panel's JSON."""
        defaults = dict(self.defaults) | ({"custom": dict(self.custom)} if self.custom else {})
        field_config = {"defaults": defaults, "overrides": list(self.overrides)}
        whole: dict[str, Any] = self.panel_json({"type": self.kind, "options": dict(self.options)})
        whole["fieldConfig"] = field_config
        if self.thresholds:
            defaults["thresholds"] = {"mode": "absolute", "steps": self.thresholds}
        return whole


Queries = Mapping[str, str]  # legend → expression


def _panel(kind: str, title: str, about: str, queries: Queries, *, instant: bool = False, **more: Any) -> Panel:
    form = more.pop("form", "time_series")
    targets = [
        Query(expr=expression, refId=chr(ord("A") + at), legendFormat=legend, instant=instant, format=form)
        for at, (legend, expression) in enumerate(queries.items())
    ]
    return Panel(
        kind=kind, title=title, description=about, dataSource=DATASOURCE, targets=targets, maxDataPoints=None, **more
    )


def timeseries(
    title: str,
    about: str,
    unit: str,
    queries: Queries,
    *,
    stacked: bool = False,
    steps: Sequence[Step] = (),
    low: float | None = 0,
    high: float | None = None,
    log: bool = False,
    width: int = 12,
    overrides: Sequence[Mapping[str, Any]] = (),
) -> Panel:
    """Lines over time, shared tooltip, a table of last values as legend."""
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 25 if stacked else 8,
        "showPoints": "never",
        "spanNulls": True,
        "scaleDistribution": {"type": "log", "log": 10} if log else {"type": "linear"},
        "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
        "thresholdsStyle": {"mode": "line" if steps else "off"},
    }
    defaults = {"unit": unit, "color": {"mode": "palette-classic"}, **_range(None if log else low, high)}
    legend = {"showLegend": True, "displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]}
    return _panel(
        "timeseries", title, about, queries, options={"legend": legend, "tooltip": _TOOLTIP}, defaults=defaults,
        custom=custom, thresholds=list(steps), width=width, overrides=list(overrides),
    )  # fmt: skip


def stat(
    title: str,
    about: str,
    unit: str,
    query: str,
    *,
    steps: Sequence[Step] = (),
    empty: str = "no data",
    decimals: int | None = None,
    width: int = 4,
    high: float | None = None,
) -> Panel:
    """One number now, with its course behind it."""
    options = {
        "colorMode": "value" if steps else "none",
        "graphMode": "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": _REDUCE,
        "textMode": "value",
        "wideLayout": True,
    }
    defaults = {"unit": unit, "noValue": empty, "color": {"mode": "thresholds"}, **_range(None, high)}
    if decimals is not None:
        defaults["decimals"] = decimals
    return _panel(
        "stat", title, about, {"now": query}, options=options, defaults=defaults,
        thresholds=list(steps) or [Step(BLUE)], width=width, tall=4,
    )  # fmt: skip


def heatmap(title: str, about: str, unit: str, query: str, *, width: int = 12) -> Panel:
    """A histogram over time; `query` gives buckets by `le`."""
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {
            "mode": "scheme",
            "scheme": "Blues",
            "exponent": 0.5,
            "fill": "dark-blue",
            "reverse": False,
            "steps": 64,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
    }
    custom = {"hideFrom": _HIDE, "scaleDistribution": {"type": "linear"}}
    return _panel(
        "heatmap", title, about, {"{{le}}": query}, form="heatmap", options=options, defaults={"unit": unit},
        custom=custom, width=width,
    )  # fmt: skip


def state_timeline(
    title: str, about: str, queries: Queries, states: Mapping[int, tuple[str, str]], *, width: int = 24
) -> Panel:
    """Which state held when; `states`: value → (text, colour)."""
    options = {
        "alignValue": "left",
        "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []},
        "mergeValues": True,
        "rowHeight": 0.85,
        "showValue": "never",
        "tooltip": {"mode": "single", "sort": "none"},
    }
    defaults = {"unit": "short", "color": {"mode": "thresholds"}, "mappings": mappings(states)}
    custom = {"fillOpacity": 75, "lineWidth": 0, "hideFrom": _HIDE}
    return _panel(
        "state-timeline", title, about, queries, options=options, defaults=defaults, custom=custom,
        thresholds=[Step(GREEN)], width=width,
    )  # fmt: skip


def bars(title: str, about: str, unit: str, queries: Queries, *, width: int = 12) -> Panel:
    """Values now, as bars, the largest first by the query's own order."""
    options = {
        "displayMode": "gradient",
        "legend": {"showLegend": False, "displayMode": "list", "placement": "bottom", "calcs": []},
        "orientation": "horizontal",
        "reduceOptions": _REDUCE,
        "showUnfilled": True,
        "valueMode": "color",
    }
    defaults = {"unit": unit, "color": {"mode": "continuous-BlPu"}, "min": 0}
    return _panel("bargauge", title, about, queries, instant=True, options=options, defaults=defaults, width=width)


def table(
    title: str,
    about: str,
    queries: Queries,
    units: Mapping[str, str],
    *,
    links: Mapping[str, str] | None = None,
    states: Mapping[str, Mapping[int, tuple[str, str]]] | None = None,
    width: int = 24,
) -> Panel:
    """Instant queries joined into rows; legends are the column headings, `units` theirs by heading."""
    names = {f"Value #{chr(ord('A') + at)}": legend for at, legend in enumerate(queries)}
    transformations: list[dict[str, Any]] = [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {"excludeByName": {"Time": True}, "indexByName": {}, "renameByName": names}},
    ]
    overrides: list[dict[str, Any]] = []
    for heading in queries:
        properties: list[dict[str, Any]] = [{"id": "unit", "value": units.get(heading, "short")}]
        if states and heading in states:
            properties += [
                {"id": "mappings", "value": mappings(states[heading])},
                {"id": "custom.cellOptions", "value": {"type": "color-text"}},
            ]
        overrides.append({"matcher": {"id": "byName", "options": heading}, "properties": properties})
    for column, url in (links or {}).items():
        link = {"title": "Open", "url": url, "targetBlank": False}
        overrides.append(
            {"matcher": {"id": "byName", "options": column}, "properties": [{"id": "links", "value": [link]}]}
        )
    return _panel(
        "table", title, about, queries, instant=True, form="table",
        transformations=transformations, overrides=overrides,
        options={"cellHeight": "sm", "showHeader": True}, defaults={"unit": "short", "noValue": "–"},
        custom={"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False}, width=width,
    )  # fmt: skip


def mappings(states: Mapping[int, tuple[str, str]]) -> list[dict[str, Any]]:
    """Value mappings of states."""
    options = {
        str(value): {"text": text, "color": color, "index": index}
        for index, (value, (text, color)) in enumerate(states.items())
    }
    return [{"type": "value", "options": options}]


def _range(low: float | None, high: float | None) -> dict[str, Any]:
    return ({} if low is None else {"min": low}) | ({} if high is None else {"max": high})
