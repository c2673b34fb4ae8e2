"""What every dashboard shares: variables, links between them, annotations, and the grid its panels are laid out on."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attr
import grafanalib.core as grafana

from dashboards.panels import DATASOURCE, Panel, attrs
from dashboards.promql import having

TAG: Final = "servelens"
COLUMNS: Final = 24
TITLES: Final = {"namespace": "Namespace", "inferenceservice": "InferenceService"}


@attrs
class Variable(grafana.Template):  # type: ignore[misc]  # grafanalib has no types
    """A variable filled from Prometheus, all values at first; `query` is PromQL's label_values."""

    def to_json_data(self) -> dict[str, Any]:
        """What Grafana stores."""
        return {
            "type": "query",
            "name": self.name,
            "label": self.label,
            "datasource": DATASOURCE,
            "query": {"query": self.query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
            "definition": self.query,
            "refresh": 2,  # when the time range changes: services come and go
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".+",
            "regex": "",
            "hide": 0,
            "options": [],
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        }


@attrs
class Source(grafana.Template):  # type: ignore[misc]  # grafanalib has no types
    """The choice of the Prometheus datasource."""

    def to_json_data(self) -> dict[str, Any]:
        """What Grafana stores."""
        return {
            "type": "datasource",
            "name": "datasource",
            "label": "Data source",
            "query": "prometheus",
            "refresh": 1,
            "multi": False,
            "includeAll": False,
            "regex": "",
            "hide": 0,
            "options": [],
            "current": {},
        }


Rows = Mapping[str, Sequence[Panel]]  # heading → panels


def board(slug: str, title: str, question: str, metric: str, rows: Rows, drift: bool = True) -> grafana.Dashboard:
    """A dashboard. `metric` is whose labels fill the variables; `question` is what it answers."""
    variables = [Source(name="datasource", query="prometheus")]
    for at, name in enumerate(TITLES):
        chained = ",".join(f'{other}=~"${other}"' for other in list(TITLES)[:at])
        series = f"{metric}{{{chained}}}" if chained else metric
        variables.append(Variable(name=name, label=TITLES[name], query=f"label_values({series}, {name})"))
    return grafana.Dashboard(
        title=f"ServeLens / {title}",
        description=question,
        uid=f"{TAG}-{slug}",
        tags=[TAG],
        editable=False,
        graphTooltip=1,
        timezone="browser",
        refresh="1m",
        time=grafana.Time("now-6h", "now"),
        templating=grafana.Templating(list=variables),
        annotations=grafana.Annotations(list=[_drifting()] if drift else []),
        links=[
            grafana.DashboardLink(
                type="dashboards", tags=[TAG], asDropdown=True, includeVars=True, keepTime=True, title="ServeLens"
            )
        ],
        panels=_laid_out(rows),
    ).auto_panel_ids()


def _drifting() -> dict[str, Any]:
    expression = having("servelens_drift_state", 2, ("namespace", "inferenceservice", "column"))
    return {
        "name": "Drift",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": expression,
        "titleFormat": "drift",
        "textFormat": "{{inferenceservice}}: {{column}}",
        "step": "60s",
        "useValueForTime": False,
    }


def _laid_out(rows: Rows) -> list[Any]:
    """Panels from left to right, wrapped at 24 columns, under their headings."""
    placed: list[Any] = []
    y = 0
    for heading, panels in rows.items():
        placed.append(grafana.RowPanel(title=heading, gridPos=grafana.GridPos(1, COLUMNS, 0, y)))
        y, x, tallest = y + 1, 0, 0
        for panel in panels:
            if x + panel.width > COLUMNS:
                y, x, tallest = y + tallest, 0, 0
            bare: Any = panel  # as for `attrs`
            placed.append(attr.evolve(bare, gridPos=grafana.GridPos(panel.tall, panel.width, x, y)))
            x, tallest = x + panel.width, max(tallest, panel.tall)
        y += tallest
    return placed
