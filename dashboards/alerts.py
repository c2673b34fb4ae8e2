"""The alert rules: each a row with what it means and what to do; made into a rules file and a runbook.

Thresholds are on states and shares, never on a p-value or a bare count of errors; without traffic nothing fires.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from dashboards.overview import ERRORS, LOST
from dashboards.promql import MODEL, SERVICE, aggregate, having, increase, quantile, rate, select, share

GROUP: Final = "servelens"
INTERVAL: Final = "30s"
_COLUMN: Final = (*MODEL, "column")


@dataclass(frozen=True, slots=True)
class Alert:
    """`what` is one fixed sentence, `where` a template of labels and value; `cause` and `remedy` are the runbook's."""

    name: str
    severity: str
    hold: str
    expression: str
    dashboard: str
    what: str
    where: str
    cause: str
    remedy: str


def _rate(name: str, *matchers: str, by: Sequence[str] = (), over: str = "10m") -> str:
    return rate(name, *matchers, by=by, over=over, scoped=False)


def _increase(name: str, *matchers: str, by: Sequence[str] = (), over: str = "10m") -> str:
    return increase(name, *matchers, by=by, over=over, scoped=False)


def _now(how: str, name: str, by: Sequence[str] = ()) -> str:
    return aggregate(how, name, by=by, scoped=False)


_ISVC: Final = "{{ $labels.namespace }}/{{ $labels.inferenceservice }}"
_OFFERED, _SHIPPED, _WAITING, _DROPPED = (
    f"servelens_logger_{word}" for word in ("offered_total", "shipped_total", "waiting", "dropped_total")
)
_UNEXPLAINED: Final = " - ".join(
    f"sum by (namespace, inferenceservice) ({select(name, scoped=False)})"
    for name in (_OFFERED, _SHIPPED, _WAITING, _DROPPED)
)
_DONE: Final = "servelens_explanations_total"
_FAILED: Final = 'result="failed"'
_REQUESTS: Final = "servelens_requests_total"
_AWAY: Final = share(
    _rate("servelens_upstream_errors_total", by=SERVICE, over="5m"), _rate(_REQUESTS, by=SERVICE, over="5m")
)
_UNSURE: Final = quantile(
    0.5, "servelens_explanation_relative_error", by=(*SERVICE, "method"), over="15m", scoped=False
)

ALERTS: Final[tuple[Alert, ...]] = (
    Alert(
        "ServeLensDrift",
        "warning",
        "0m",
        having("servelens_drift_state", 2, _COLUMN, scoped=False),
        "drift",
        "A model's inputs or predictions differ from its reference.",
        f"{_ISVC}: column {{{{ $labels.column }}}} is in drift.",
        "The column's distribution was found to differ in confirmed windows, by more than the effect gate.",
        "Look at the column's effect and at when it began; compare with releases of the client, the feature pipeline "
        "and the model. If the new data is right, build a new profile from it.",
    ),
    Alert(
        "ServeLensPayloadsLost",
        "warning",
        "5m",
        f"{share(_rate(_DROPPED, LOST, by=SERVICE), _rate(_OFFERED, by=SERVICE))} > 0.001",
        "logger",
        "Exchanges are lost that should be in Kafka.",
        f"{_ISVC}: {{{{ $value | humanizePercentage }}}} of exchanges.",
        "The spool or the capture memory is full, or processes were killed; the reason is a label of the drop counter.",
        "spool_full: bring Kafka back or raise --spool-bytes. over_budget: raise --capture-memory or lower --body-cap. "
        "crash: see why the tap died. unparsable: see what clients send.",
    ),
    Alert(
        "ServeLensAccountBroken",
        "critical",
        "15m",
        f"({_UNEXPLAINED}) != 0",
        "logger",
        "The account of exchanges does not add up.",
        f"{_ISVC}: {{{{ $value }}}} exchanges are neither in Kafka nor waiting nor dropped.",
        "A fault of ServeLens, or files of the spool folder were changed by hand.",
        "Keep the spool folder and the logs, and report it; the count of losses is not to be trusted until then.",
    ),
    Alert(
        "ServeLensNotShipping",
        "critical",
        "10m",
        f"{_now('sum', _WAITING, SERVICE)} > 0 and on (namespace, inferenceservice) "
        f"{_increase(_SHIPPED, by=SERVICE)} == 0",
        "logger",
        "Exchanges wait and none reaches Kafka.",
        f"{_ISVC}: {{{{ $value }}}} wait.",
        "Kafka is away, refuses the credentials, or lacks the topic.",
        "See the shipper's log and the reasons of failed deliveries; `servelens topics check` says what does not fit. "
        "Nothing is lost until the spool is full.",
    ),
    Alert(
        "ServeLensUpstreamAway",
        "critical",
        "2m",
        f"{_AWAY} > 0.01",
        "logger",
        "The model's server does not answer the tap.",
        f"{_ISVC}: {{{{ $value | humanizePercentage }}}} of requests.",
        "The model server in the pod is down, starting, or refuses connections; clients get 502.",
        "See the model server's container; the tap serves again as soon as it accepts connections.",
    ),
    Alert(
        "ServeLensErrors",
        "warning",
        "10m",
        f"{share(_rate(_REQUESTS, ERRORS, by=SERVICE), _rate(_REQUESTS, by=SERVICE))} > 0.05",
        "overview",
        "Many inferences are answered with 5xx.",
        f"{_ISVC}: {{{{ $value | humanizePercentage }}}} of requests.",
        "The model server fails on requests it accepts.",
        "See its log, and in the payload log the requests with that status.",
    ),
    Alert(
        "ServeLensRestarting",
        "warning",
        "0m",
        f"{_increase('servelens_logger_restarts_total', by=(*SERVICE, 'process'), over='15m')} > 3",
        "logger",
        "A process of the logger dies again and again.",
        f"{_ISVC}: {{{{ $labels.process }}}}.",
        "It is killed (memory), or fails at start.",
        "See its log lines before each start, and the container's memory limit.",
    ),
    Alert(
        "ServeLensDetectorStalled",
        "critical",
        "5m",
        "time() - max(servelens_evaluator_watermark_seconds) > 600 and on () "
        "(sum(servelens_detector_lag_records) > 0 or sum(rate(servelens_detector_events_total[10m])) > 0)",
        "drift",
        "Payloads come, and no verdicts.",
        "Event time has stood still for {{ $value | humanizeDuration }}.",
        "Workers do not read, cannot write panes, or no evaluator is active.",
        "See lag, batches and claims; then the log of a worker and of the active evaluator.",
    ),
    Alert(
        "ServeLensNoEvaluator",
        "critical",
        "2m",
        "sum(servelens_evaluator_active) != 1",
        "drift",
        "Not exactly one evaluator is active.",
        "{{ $value }} hold the lease.",
        "All evaluators are down or cannot reach Kafka; more than one is active only while a lease moves.",
        "See the evaluators' logs and their connection to Kafka. This rule is for one detector group.",
    ),
    Alert(
        "ServeLensDeadLetters",
        "warning",
        "0m",
        f"{_increase('servelens_detector_dead_letters_total', by=('reason',), over='15m')} > 0",
        "drift",
        "Payload records cannot be read.",
        "{{ $labels.reason }}: {{ $value | humanize }} in 15 minutes.",
        "A body is not what its headers, or model.yaml, say.",
        "Look at the records in the dead-letter topic: their headers name the problem. Rows in them are in no window.",
    ),
    Alert(
        "ServeLensLogTruncated",
        "critical",
        "0m",
        f"{_increase('servelens_detector_gap_records_total', over='15m')} > 0",
        "drift",
        "Kafka dropped payloads before the detector read them.",
        "{{ $value | humanize }} records in 15 minutes.",
        "Workers were behind by more than the topic's retention.",
        "Add workers or lengthen retention; windows of that time state a lower coverage.",
    ),
    Alert(
        "ServeLensCoverageLow",
        "warning",
        "30m",
        f"{_now('min', 'servelens_window_coverage', MODEL)} < 0.9",
        "drift",
        "Windows hold too little of the traffic.",
        f"{_ISVC}: {{{{ $value | humanizePercentage }}}} of offered exchanges.",
        "Payloads are lost, sampled or unreadable; verdicts speak for the rest only.",
        "See the payload log for losses, and dead letters.",
    ),
    Alert(
        "ServeLensExplainerFailing",
        "warning",
        "10m",
        f"{share(_rate(_DONE, _FAILED, by=SERVICE), _rate(_DONE, by=SERVICE))} > 0.05",
        "explainer",
        "Explanations fail.",
        f"{_ISVC}: {{{{ $value | humanizePercentage }}}} of rows.",
        "The predictor is away or too slow for the deadline, or answers what cannot be read.",
        "See errors by reason and the calls' status; then the predictor.",
    ),
    Alert(
        "ServeLensExplanationsUnsure",
        "warning",
        "15m",
        f"{_UNSURE} > 0.2",
        "explainer",
        "Half of the explanations have a large error.",
        f"{_ISVC}: {{{{ $value | humanizePercentage }}}} of the attributions' sum, {{{{ $labels.method }}}}.",
        "Deadline or row budget cut the walks short, or the model is all interaction.",
        "Raise --deadline or max_rows, make the predictor faster, or take more `pairs`.",
    ),
)


def rules() -> dict[str, Any]:
    """The rules file as a mapping."""
    return {"groups": [{"name": GROUP, "interval": INTERVAL, "rules": [_rule(alert) for alert in ALERTS]}]}


def _rule(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expression,
        "for": alert.hold,
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.what,
            "description": alert.where,
            "runbook": f"runbook.md#{alert.name.lower()}",
            "dashboard": f"/d/servelens-{alert.dashboard}",
        },
    }


def runbook() -> str:
    """What each alert means and what to do, as one page."""
    sections = [
        f"## {alert.name}\n\n{alert.what} Severity: {alert.severity}. Dashboard: `/d/servelens-{alert.dashboard}`.\n\n"
        f"**Cause.** {alert.cause}\n\n**What to do.** {alert.remedy}\n\n"
        f"```promql\n{alert.expression}\n```\n"
        for alert in ALERTS
    ]
    return "\n".join(["# Runbook\n\nOne section an alert. Generated; do not edit.\n", *sections])
