"""The first dashboard one opens: every InferenceService at once, and which of the others to open next."""

from typing import Final

import grafanalib.core as grafana

from dashboards.board import board
from dashboards.panels import GREEN, RED, YELLOW, Step, stat, state_timeline, table, timeseries
from dashboards.promql import INTERVAL, SERVICE, aggregate, first_of, having, increase, mean, quantile, rate, share

STATES: Final = {
    0: ("ok", GREEN),
    1: ("suspect", YELLOW),
    2: ("drift", RED),
    3: ("recovering", "light-blue"),
    4: ("insufficient", "text"),
    5: ("autocorrelated", "purple"),
}
WORST_FIRST: Final = (2, 1, 3, 0, 5, 4)
REQUESTS: Final = "servelens_requests_total"
ERRORS: Final = 'code=~"5.."'
LOST: Final = 'reason=~"over_budget|unparsable|spool_full|spool_lost|crash|refused"'


def build() -> grafana.Dashboard:
    """The dashboard."""
    offered, dropped = "servelens_logger_offered_total", "servelens_logger_dropped_total"
    error_share = share(rate(REQUESTS, ERRORS, by=SERVICE), rate(REQUESTS, by=SERVICE))
    return board(
        "overview",
        "Overview",
        "Is anything on fire, and where?",
        REQUESTS,
        {
            "Now": [
                stat("Requests", "Exchanges answered a second, logged or not.", "reqps", rate(REQUESTS)),
                stat(
                    "Success",
                    "Share of exchanges not answered with 5xx.",
                    "percentunit",
                    f"1 - {share(rate(REQUESTS, ERRORS), rate(REQUESTS))}",
                    steps=[Step(RED), Step(YELLOW, 0.99), Step(GREEN, 0.999)],
                    empty="no traffic",
                    high=1,
                ),
                stat(
                    "Latency p95",
                    "From the request's head to the last byte of its answer.",
                    "s",
                    quantile(0.95, "servelens_request_duration_seconds"),
                    empty="no traffic",
                ),
                stat(
                    "Payloads lost",
                    "Exchanges of the last hour that should be in Kafka and never will be.",
                    "short",
                    increase(dropped, LOST, over="1h"),
                    steps=[Step(GREEN), Step(RED, 1)],
                    decimals=0,
                ),
                stat(
                    "Columns drifting",
                    "Columns whose inputs or predictions differ from the reference by now.",
                    "short",
                    f"count({having('servelens_drift_state', 2, (*SERVICE, 'column'))}) or vector(0)",
                    steps=[Step(GREEN), Step(RED, 1)],
                    decimals=0,
                ),
                stat(
                    "Alerts",
                    "Alerts of ServeLens that fire.",
                    "short",
                    'count(ALERTS{alertname=~"ServeLens.*",alertstate="firing"}) or vector(0)',
                    steps=[Step(GREEN), Step(RED, 1)],
                    decimals=0,
                ),
            ],
            "Services": [
                table(
                    "InferenceServices",
                    "One row each; its name leads to its drift, its rate to its payload log.",
                    {
                        "Requests": rate(REQUESTS, by=SERVICE, over="5m"),
                        "Errors": share(
                            rate(REQUESTS, ERRORS, by=SERVICE, over="5m"), rate(REQUESTS, by=SERVICE, over="5m")
                        ),
                        "Latency p95": quantile(0.95, "servelens_request_duration_seconds", by=SERVICE, over="5m"),
                        "Logged, not shipped": aggregate("sum", "servelens_logger_waiting", by=SERVICE),
                        "Worst column": first_of("servelens_drift_state", WORST_FIRST, SERVICE),
                        "Window coverage": aggregate("min", "servelens_window_coverage", by=SERVICE),
                        "Explanations": rate("servelens_explanations_total", by=SERVICE, over="5m"),
                    },
                    {
                        "Requests": "reqps",
                        "Errors": "percentunit",
                        "Latency p95": "s",
                        "Window coverage": "percentunit",
                        "Explanations": "ops",
                    },
                    links={
                        "inferenceservice": _link("drift"),
                        "Requests": _link("logger"),
                        "Explanations": _link("explainer"),
                    },
                    states={"Worst column": STATES},
                )
            ],
            "Traffic": [
                timeseries(
                    "Requests by service",
                    "Exchanges answered a second.",
                    "reqps",
                    {"{{namespace}}/{{inferenceservice}}": rate(REQUESTS, by=SERVICE)},
                ),
                timeseries(
                    "Errors by service",
                    "Share of exchanges answered with 5xx.",
                    "percentunit",
                    {"{{namespace}}/{{inferenceservice}}": error_share},
                ),
                timeseries(
                    "Latency p95 by service",
                    "From the request's head to the last byte of its answer.",
                    "s",
                    {
                        "{{namespace}}/{{inferenceservice}}": quantile(
                            0.95, "servelens_request_duration_seconds", by=SERVICE
                        )
                    },
                ),
                timeseries(
                    "Both flows",
                    "Exchanges into the payload log, rows counted by detectors, rows explained.",
                    "ops",
                    {
                        "exchanges offered": rate(offered),
                        "exchanges in Kafka": rate("servelens_logger_shipped_total"),
                        "rows counted": rate("servelens_detector_rows_total"),
                        "rows explained": rate("servelens_explanations_total"),
                    },
                ),
            ],
            "Verdicts and explanations": [
                state_timeline(
                    "Worst column of each service",
                    "Drift of inputs or predictions against the reference; a verdict, not a p-value.",
                    {"{{namespace}}/{{inferenceservice}}": first_of("servelens_drift_state", WORST_FIRST, SERVICE)},
                    STATES,
                    width=12,
                ),
                timeseries(
                    "Explanation time, mean",
                    "From request to explanation, by method.",
                    "s",
                    {"{{method}}": mean("servelens_explanation_duration_seconds", by=("method",), over=INTERVAL)},
                ),
            ],
        },
    )


def _link(slug: str) -> str:
    values = "&".join(f"var-{label}=${{__data.fields.{label}}}" for label in SERVICE)
    return f"/d/servelens-{slug}?{values}&${{__url_time_range}}"
