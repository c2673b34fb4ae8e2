"""Drift: whether the model still sees what it was trained on, and whether the verdict can be believed."""

import grafanalib.core as grafana

from dashboards.board import board
from dashboards.overview import STATES, WORST_FIRST
from dashboards.panels import GREEN, RED, YELLOW, Step, bars, stat, state_timeline, timeseries
from dashboards.promql import SERVICE, aggregate, first_of, increase, rate, select

COLUMN = (*SERVICE, "column")


def build() -> grafana.Dashboard:
    """The dashboard."""
    worst = first_of("servelens_drift_state", WORST_FIRST, COLUMN)
    effect = aggregate("max", "servelens_drift_effect", by=COLUMN)
    return board(
        "drift",
        "Drift",
        "Is the model still seeing what it was trained on, and can the verdict be believed?",
        "servelens_windows_closed_total",
        {
            "Verdict": [
                stat(
                    "Columns drifting",
                    "Columns in the state of drift now.",
                    "short",
                    f"count({worst} == 2) or vector(0)",
                    steps=[Step(GREEN), Step(RED, 1)],
                    decimals=0,
                ),
                stat(
                    "Columns watched",
                    "Columns of all models chosen above.",
                    "short",
                    f"count({aggregate('max', 'servelens_design_effect', by=COLUMN)})",  # the requests have none
                    decimals=0,
                ),
                stat(
                    "Windows judged",
                    "Windows closed since the evaluator started.",
                    "short",
                    f"sum({select('servelens_windows_closed_total')})",
                    decimals=0,
                ),
                stat(
                    "Rows of the newest window",
                    "The smallest of all models: few rows see only large differences.",
                    "short",
                    aggregate("min", "servelens_window_rows"),
                    decimals=0,
                ),
                stat(
                    "Coverage",
                    "Share of offered exchanges the newest window holds; the lowest of all models.",
                    "percentunit",
                    aggregate("min", "servelens_window_coverage"),
                    steps=[Step(RED), Step(YELLOW, 0.9), Step(GREEN, 0.99)],
                    high=1,
                ),
                stat(
                    "Age of the verdicts",
                    "How far the event time that has been judged lies behind now.",
                    "s",
                    "time() - max(servelens_evaluator_watermark_seconds)",
                    steps=[Step(GREEN), Step(YELLOW, 300), Step(RED, 900)],
                ),
                state_timeline(
                    "State of each column",
                    "ok, suspect (one window fired), drift (confirmed), recovering (quiet), autocorrelated (blind).",
                    {"{{inferenceservice}} {{column}}": worst},
                    STATES,
                ),
            ],
            "How large": [
                timeseries(
                    "Effect",
                    "Kolmogorov–Smirnov distance of numeric columns, total variation of others.",
                    "short",
                    {"{{inferenceservice}} {{column}}": effect},
                ),
                timeseries(
                    "What could have been seen",
                    "The smallest effect the newest window could have shown, by column.",
                    "short",
                    {"{{inferenceservice}} {{column}}": aggregate("max", "servelens_min_detectable_effect", by=COLUMN)},
                ),
                timeseries(
                    "p-value",
                    "Of the newest window, given the reference. For looking at: verdicts and alerts rest on the state.",
                    "short",
                    {"{{inferenceservice}} {{column}}": aggregate("min", "servelens_drift_pvalue", by=COLUMN)},
                    log=True,
                ),
                bars(
                    "Largest effects now",
                    "The fifteen columns furthest from their reference.",
                    "short",
                    {
                        "{{inferenceservice}} {{column}}": f"topk(15, {effect})",
                    },
                ),
            ],
            "Can it be believed": [
                timeseries(
                    "Coverage of windows",
                    "Share of offered exchanges each model's newest window holds.",
                    "percentunit",
                    {"{{inferenceservice}}": aggregate("min", "servelens_window_coverage", by=SERVICE)},
                    high=1,
                ),
                timeseries(
                    "Rows of windows",
                    "Rows of each model's newest window.",
                    "short",
                    {"{{inferenceservice}}": aggregate("max", "servelens_window_rows", by=SERVICE)},
                ),
                timeseries(
                    "Design effect",
                    "How many times more rows the reference's own dependence asks for; 1 is independent.",
                    "short",
                    {"{{inferenceservice}} {{column}}": aggregate("max", "servelens_design_effect", by=COLUMN)},
                ),
                timeseries(
                    "Late and lost rows",
                    "Rows that came after their window had closed; records the log no longer held.",
                    "short",
                    {
                        "late rows": increase("servelens_late_rows_total"),
                        "records in gaps": increase("servelens_detector_gap_records_total"),
                    },
                ),
            ],
            "The detector": [
                timeseries(
                    "Records read",
                    "Payload records by what became of them.",
                    "ops",
                    {"{{result}}": rate("servelens_detector_events_total", by=("result",))},
                    stacked=True,
                ),
                timeseries(
                    "Dead letters",
                    "Records that could not be read, by reason; they wait in the dead-letter topic.",
                    "ops",
                    {"{{reason}}": rate("servelens_detector_dead_letters_total", by=("reason",))},
                ),
                timeseries(
                    "Batches and claims",
                    "Pane batches by what the log made of them, and claims by cause.",
                    "ops",
                    {
                        "batches {{result}}": rate("servelens_detector_batches_total", by=("result",)),
                        "claims {{reason}}": rate("servelens_detector_claims_total", by=("reason",)),
                    },
                ),
                timeseries(
                    "Not yet read",
                    "Payload records between the end of the log and the last batch, by partition.",
                    "short",
                    {"partition {{partition}}": aggregate("max", "servelens_detector_lag_records", by=("partition",))},
                ),
                timeseries(
                    "Not yet judged",
                    "Entries of the panes logs and the journal that the evaluator has not read; falls after a restart.",
                    "short",
                    {"entries": aggregate("max", "servelens_evaluator_lag_entries")},
                ),
                timeseries(
                    "Active evaluators",
                    "One, and one only, holds the lease of a group.",
                    "short",
                    {"active": aggregate("sum", "servelens_evaluator_active")},
                ),
                timeseries(
                    "Verdicts by state",
                    "Windows judged, by the worst column of each.",
                    "ops",
                    {"{{state}}": rate("servelens_verdicts_total", by=("state",))},
                    stacked=True,
                ),
            ],
        },
    )
