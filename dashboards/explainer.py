"""Explanations: whether they work, how long they take, how sure they are, and what they cost the predictor."""

import grafanalib.core as grafana

from dashboards.board import board
from dashboards.panels import GREEN, RED, YELLOW, Step, bars, heatmap, stat, timeseries
from dashboards.promql import SERVICE, aggregate, increase, mean, quantile, rate, share

DONE = "servelens_explanations_total"
DURATION = "servelens_explanation_duration_seconds"
ERROR = "servelens_explanation_relative_error"


def build() -> grafana.Dashboard:
    """The dashboard."""
    rows, calls = "servelens_explanation_predictor_rows_total", "servelens_explanation_predictor_calls_total"
    saved = "servelens_explanation_rows_saved_total"
    return board(
        "explainer",
        "Explanations",
        "Do explanations work, how long do they take, how sure are they, and what do they cost the predictor?",
        DONE,
        {
            "Now": [
                stat("Explanations", "Rows explained a second.", "ops", rate(DONE)),
                stat(
                    "Complete",
                    "Share of rows explained as well as was planned, within the deadline.",
                    "percentunit",
                    share(rate(DONE, 'result="complete"'), rate(DONE)),
                    steps=[Step(RED), Step(YELLOW, 0.9), Step(GREEN, 0.99)],
                    empty="none asked",
                    high=1,
                ),
                stat("Time p95", "From request to explanation.", "s", quantile(0.95, DURATION), empty="none asked"),
                stat(
                    "Relative error p95",
                    "Largest standard error of a row over its sum of absolute attributions.",
                    "percentunit",
                    quantile(0.95, ERROR),
                    steps=[Step(GREEN), Step(YELLOW, 0.05), Step(RED, 0.2)],
                    empty="none asked",
                ),
                stat(
                    "Predictor rows each",
                    "Rows sent to the predictor for one row explained.",
                    "short",
                    f"{rate(rows)} / ({rate(DONE)} > 0)",
                    empty="none asked",
                ),
                stat(
                    "Model changes",
                    "Times another model was seen to answer, in the last hour: rollouts and canaries.",
                    "short",
                    increase("servelens_explanation_predictor_changes_total", over="1h"),
                    decimals=0,
                ),
            ],
            "Do they work": [
                timeseries(
                    "Rows explained, by result",
                    "partial: an answer at the deadline, with a larger error; failed: none.",
                    "ops",
                    {"{{method}} {{result}}": rate(DONE, by=("method", "result"))},
                    stacked=True,
                ),
                timeseries(
                    "Errors, by reason",
                    "Explain requests answered with an error.",
                    "ops",
                    {"{{reason}}": rate("servelens_explanation_errors_total", by=("reason",))},
                ),
                timeseries(
                    "Time",
                    "From request to explanation; buckets reach ten minutes.",
                    "s",
                    {f"{{{{method}}}} p{q * 100:g}": quantile(q, DURATION, by=("method",)) for q in (0.5, 0.95)},
                ),
                heatmap("Time, all of it", "How many took how long.", "s", increase(f"{DURATION}_bucket", by=("le",))),
            ],
            "How sure": [
                timeseries(
                    "Relative error",
                    "Largest standard error of a row over its sum of absolute attributions.",
                    "percentunit",
                    {f"{{{{method}}}} p{q * 100:g}": quantile(q, ERROR, by=("method",)) for q in (0.5, 0.95)},
                ),
                bars(
                    "What predictions rest on",
                    "Features by share of the absolute attributions, summed over the rows of the range chosen above.",
                    "short",
                    {
                        "{{column}}": "topk(15, "
                        + increase("servelens_explanation_attribution_share_total", by=("column",), over="$__range")
                        + ")"
                    },
                ),
                timeseries(
                    "Mean share of attributions",
                    "By feature, of one row: a change tells that the model looks at other things.",
                    "percentunit",
                    {
                        "{{column}}": f"{rate('servelens_explanation_attribution_share_total', by=('column',))}"
                        f" / on () group_left () ({rate(DONE)} > 0)"
                    },
                    width=24,
                ),
            ],
            "What it costs the predictor": [
                timeseries(
                    "Rows",
                    "Sent to the predictor; and not sent, being cached or equal to others.",
                    "ops",
                    {"sent": rate(rows), "saved, {{reason}}": rate(saved, by=("reason",))},
                ),
                timeseries(
                    "Calls, by status", "Calls to the predictor.", "ops", {"{{code}}": rate(calls, by=("code",))}
                ),
                timeseries(
                    "Time of a call",
                    "Of the predictor, for one batch of rows.",
                    "s",
                    {
                        "mean": mean("servelens_explanation_predictor_duration_seconds"),
                        "p95": quantile(0.95, "servelens_explanation_predictor_duration_seconds"),
                    },
                ),
                timeseries(
                    "Queues",
                    "Requests that run and wait, and rows that wait for a call.",
                    "short",
                    {
                        "running": aggregate("sum", "servelens_explanations_in_flight"),
                        "waiting": aggregate("sum", "servelens_explanations_waiting"),
                        "rows waiting": aggregate("sum", "servelens_explanation_pending_rows"),
                    },
                ),
            ],
            "By service": [
                timeseries(
                    "Rows explained, by service",
                    "Rows explained a second.",
                    "ops",
                    {"{{namespace}}/{{inferenceservice}}": rate(DONE, by=SERVICE)},
                    width=24,
                )
            ],
        },
    )
