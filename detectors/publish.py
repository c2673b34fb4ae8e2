"""Verdicts out: the CloudEvent for `<prefix>.verdicts`, and the gauges alerts speak of. No I/O but the registry's."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from detectors.monitor import STATES
from detectors.profile import Profile
from detectors.requests import NAME
from detectors.verdict import COMPARISON, summary
from servelens.contract import attributes
from servelens.contract.events import VERDICT_TYPE, Record
from servelens.contract.identity import ModelIdentity
from servelens.contract.metrics import Instruments
from servelens.contract.times import US

# Field of a verdict's column → gauge.
_GAUGES: Final = (
    ("effect", "servelens_drift_effect"),
    ("p", "servelens_drift_pvalue"),
    ("min_detectable", "servelens_min_detectable_effect"),
    ("deff", "servelens_design_effect"),
)
_WINDOW_GAUGES: Final = ("servelens_window_rows", "servelens_window_coverage")


def event(verdict: Mapping[str, Any]) -> Record:
    """The verdict as a CloudEvent in Kafka's binary mode: id = verdict id, key = model, time = the window's end."""
    identity = ModelIdentity.from_mapping({key: str(value) for key, value in verdict.items()})
    end_us = (verdict["slots"][1] + 1) * verdict["slotseconds"] * US
    names = dict(attributes.core(verdict["id"], VERDICT_TYPE, attributes.source_of(identity), end_us))
    names |= {"subject": verdict["state"], "inferenceservicename": identity.inferenceservice}
    names |= {k: v for k, v in identity.labels().items() if v and k != "inferenceservice"}
    headers = (("content-type", b"application/json"), *(("ce_" + name, text.encode()) for name, text in names.items()))
    data = orjson.dumps({**verdict, "summary": summary(verdict)})
    return Record(str(identity).encode(), headers, data, end_us // 1000)


def withdraw(metrics: Instruments) -> None:
    """Take every verdict gauge back: another process shows them from here on."""
    for name in (*(gauge for _, gauge in _GAUGES), "servelens_drift_state", *_WINDOW_GAUGES):
        metrics[name].clear()


def count(verdict: Mapping[str, Any], metrics: Instruments) -> None:
    """One window more of its model's."""
    if verdict["kind"] == COMPARISON:
        return
    model = _model(verdict)
    metrics["servelens_windows_closed_total"].labels(**model).inc()
    metrics["servelens_verdicts_total"].labels(**model, state=verdict["state"]).inc()
    if not verdict["segment"]:
        metrics["servelens_late_rows_total"].labels(**model).inc(verdict["late"])


def expose(verdict: Mapping[str, Any], profile: Profile, metrics: Instruments) -> None:
    """Set the gauges of one verdict: its model's, and those of the columns its profile shows.

    A column of a segment is called `column[segment]`, one compared with another revision `column~revision`.
    """
    model, shown = _model(verdict), {*profile.series, NAME}
    beside = f"~{verdict['against']}" if verdict["kind"] == COMPARISON else ""
    inside = f"[{verdict['segment']}]" if verdict["segment"] else ""
    if not beside and not inside:
        metrics["servelens_window_rows"].labels(**model).set(verdict["rows"])
        if verdict["coverage"] != "unknown":
            metrics["servelens_window_coverage"].labels(**model).set(verdict["coverage"])
    for column in verdict["columns"]:
        if column["column"] not in shown:
            continue
        labels = {**model, "column": f"{column['column']}{inside}{beside}"}
        metrics["servelens_drift_state"].labels(**labels).set(STATES.index(column["state"]))
        for name, gauge in _GAUGES:
            if column.get(name) is not None:
                metrics[gauge].labels(**labels).set(column[name])


def _model(verdict: Mapping[str, Any]) -> dict[str, str]:
    return ModelIdentity.from_mapping({key: str(value) for key, value in verdict.items()}).labels()
