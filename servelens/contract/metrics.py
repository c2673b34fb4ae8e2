"""The metric catalogue: every metric ServeLens exposes, once. Instruments, dashboards, rules and docs are made from it.

A service asks `instruments(registry)` for what it needs by catalogue name; a name that is not here cannot be exposed.
Units are seconds and bytes; the identity labels are spelled as in `identity.ModelIdentity.labels`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

Kind = Literal["counter", "gauge", "histogram"]

SERVICE: Final = ("namespace", "inferenceservice", "component")
MODEL: Final = (*SERVICE, "modelname", "revision")
COLUMN: Final = (*MODEL, "column")
# Latencies of inference: a cached tabular model answers in half a millisecond, a large language model in minutes.
LATENCY: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
# Explanations: from one that was cached to a large language model's.
EXPLANATION: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
SHARE: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the catalogue. `name` is as scraped, so a counter's ends in `_total`."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


_ROWS: Final = (
    # Logger: every exchange that passes the tap, whether it is logged or not.
    Metric("servelens_requests_total", "counter", (*SERVICE, "method", "code"), "Exchanges answered, by status code."),
    Metric("servelens_request_duration_seconds", "histogram", SERVICE, "Request head to last response byte.", LATENCY),
    Metric("servelens_requests_in_flight", "gauge", SERVICE, "Exchanges begun and not yet answered."),
    Metric("servelens_upstream_errors_total", "counter", (*SERVICE, "reason"), "Exchanges left unanswered."),
    Metric("servelens_logger_offered_total", "counter", SERVICE, "Exchanges whose request head reached the tap."),
    Metric("servelens_logger_shipped_total", "counter", SERVICE, "Exchanges acknowledged by Kafka."),
    Metric("servelens_logger_waiting", "gauge", SERVICE, "Exchanges open, handed over or spooled, not yet shipped."),
    Metric("servelens_logger_dropped_total", "counter", (*SERVICE, "reason"), "Exchanges not kept, by reason."),
    Metric("servelens_logger_spool_bytes", "gauge", SERVICE, "Bytes of all spool files on disk."),
    Metric("servelens_logger_capture_bytes", "gauge", SERVICE, "Bytes of captured bodies held in the tap's memory."),
    Metric("servelens_logger_requestid_dropped_total", "counter", SERVICE, "Client request ids unfit for an event."),
    Metric("servelens_logger_ship_errors_total", "counter", (*SERVICE, "reason"), "Failed deliveries, each retried."),
    Metric("servelens_logger_restarts_total", "counter", (*SERVICE, "process"), "Processes restarted by the parent."),
    Metric("servelens_logger_withheld_total", "counter", (*SERVICE, "reason"), "Bodies left out, by why."),
    Metric("servelens_spans_total", "counter", (*SERVICE, "result"), "Spans recorded, by what became of them."),
    # The names proposed for KServe's agent (kserve/kserve#6181), for dashboards made for those; exchanges, all types.
    Metric("kserve_logger_events_sent_total", "counter", (*SERVICE, "type"), "Exchanges acknowledged by Kafka."),
    Metric("kserve_logger_events_failed_total", "counter", (*SERVICE, "type"), "Exchanges Kafka would not take."),
    Metric("kserve_logger_events_dropped_total", "counter", (*SERVICE, "type"), "Exchanges lost before Kafka."),
    Metric("kserve_logger_work_queue_depth", "gauge", SERVICE, "Exchanges not yet shipped."),
    Metric(
        "kserve_logger_delivery_duration_seconds",
        "histogram",
        (*SERVICE, "type"),
        "Handing a record to the Kafka client to its acknowledgement.",
        LATENCY,
    ),
    # Bridge: what is posted to it, by HTTP. What becomes of it then, the logger's account says (component "bridge").
    Metric("servelens_bridge_events_total", "counter", ("type",), "Events and labels answered with 202."),
    Metric("servelens_bridge_rejected_total", "counter", ("reason",), "Posts answered with an error, and not kept."),
    Metric("servelens_bridge_dead_letters_total", "counter", ("reason",), "Events that could not be read."),
    Metric("servelens_bridge_request_duration_seconds", "histogram", (), "A post's head to its answer.", LATENCY),
    # Detector workers.
    Metric("servelens_detector_events_total", "counter", ("result",), "Payload records read, by what became of them."),
    Metric("servelens_detector_rows_total", "counter", MODEL, "Rows counted into panes that were accepted."),
    Metric("servelens_detector_dead_letters_total", "counter", ("reason",), "Records sent to the dead-letter topic."),
    Metric(
        "servelens_detector_batches_total",
        "counter",
        ("result",),
        "Own pane batches seen in the log: accepted, or why not.",
    ),
    Metric("servelens_detector_claims_total", "counter", ("reason",), "Claims appended: assignment or fenced."),
    Metric("servelens_detector_gap_records_total", "counter", (), "Offsets the payload log no longer held."),
    Metric("servelens_detector_lag_records", "gauge", ("partition",), "Payload records not yet read, by partition."),
    # Evaluator.
    Metric("servelens_evaluator_active", "gauge", (), "1 in the one evaluator of the group that holds the lease."),
    Metric(
        "servelens_evaluator_watermark_seconds", "gauge", (), "Event time reached on every partition, Unix seconds."
    ),
    Metric("servelens_windows_closed_total", "counter", MODEL, "Windows closed and judged."),
    Metric("servelens_window_rows", "gauge", MODEL, "Rows of the newest closed window."),
    Metric("servelens_window_coverage", "gauge", MODEL, "Share of the offered exchanges the window holds."),
    Metric("servelens_late_rows_total", "counter", MODEL, "Rows that came after their window had closed."),
    Metric("servelens_evaluator_lag_entries", "gauge", (), "Entries of panes logs and journal not yet read."),
    Metric(
        "servelens_drift_state",
        "gauge",
        COLUMN,
        "0 ok, 1 suspect, 2 drift, 3 recovering, 4 too few rows, 5 reference too autocorrelated.",
    ),
    Metric("servelens_drift_effect", "gauge", COLUMN, "Size of the difference: KS distance or total variation."),
    Metric("servelens_drift_pvalue", "gauge", COLUMN, "Conditional p-value of the newest window."),
    Metric("servelens_min_detectable_effect", "gauge", COLUMN, "Smallest effect this window could have shown."),
    Metric("servelens_design_effect", "gauge", COLUMN, "Variance inflation of the reference by autocorrelation."),
    Metric("servelens_verdicts_total", "counter", (*MODEL, "state"), "Verdicts reached, by the worst column state."),
    # Explainer: identity of the model that is explained.
    Metric(
        "servelens_explanations_total",
        "counter",
        (*MODEL, "method", "result"),
        "Rows explained: complete, partial, failed.",
    ),
    Metric(
        "servelens_explanation_duration_seconds",
        "histogram",
        (*MODEL, "method"),
        "Request to explanation of a row, or to its failure.",
        EXPLANATION,
    ),
    Metric(
        "servelens_explanation_errors_total", "counter", (*MODEL, "reason"), "Explain requests answered with an error."
    ),
    Metric("servelens_explanations_in_flight", "gauge", MODEL, "Explain requests admitted and not yet answered."),
    Metric("servelens_explanations_waiting", "gauge", MODEL, "Explain requests that wait to be admitted."),
    Metric(
        "servelens_explanation_relative_error",
        "histogram",
        (*MODEL, "method"),
        "Largest stated standard error of a row over its sum of absolute attributions.",
        SHARE,
    ),
    Metric(
        "servelens_explanation_predictor_calls_total", "counter", (*MODEL, "code"), "Calls to the predictor, by status."
    ),
    Metric("servelens_explanation_predictor_rows_total", "counter", MODEL, "Rows sent to the predictor."),
    Metric(
        "servelens_explanation_rows_saved_total",
        "counter",
        (*MODEL, "reason"),
        "Rows asked for and not sent: cached, or a duplicate in the same batch.",
    ),
    Metric(
        "servelens_explanation_predictor_duration_seconds",
        "histogram",
        MODEL,
        "One call to the predictor.",
        LATENCY,
    ),
    Metric("servelens_explanation_pending_rows", "gauge", MODEL, "Rows that wait for a predictor call."),
    Metric("servelens_explanation_predictor_changes_total", "counter", MODEL, "Times another model answered."),
    Metric(
        "servelens_explanation_attribution_share_total",
        "counter",
        COLUMN,
        "Sum over explained rows of a feature's share of the absolute attributions.",
    ),
    # Every service.
    Metric("servelens_build_info", "gauge", ("version", "service"), "Always 1; which build serves here."),
    Metric("servelens_task_errors_total", "counter", ("task",), "Unexpected errors caught at a task's top."),
)


def _table(rows: tuple[Metric, ...]) -> dict[str, Metric]:
    table = {metric.name: metric for metric in rows}
    if len(table) != len(rows):
        raise ValueError("a metric name stands twice in the catalogue")
    return table


CATALOGUE: Final[Mapping[str, Metric]] = _table(_ROWS)

_KINDS: Final[Mapping[Kind, type[MetricWrapperBase]]] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}


class Instruments:
    """Live instruments of one registry, made on first use: `m["servelens_…_total"].labels(…).inc()`.

    `multiprocess_mode` is prometheus-client's for gauges, used where several processes share one exposition.
    """

    def __init__(self, registry: CollectorRegistry, multiprocess_mode: str = "livesum") -> None:
        self._registry, self._mode = registry, multiprocess_mode
        self._live: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        """The instrument of that catalogue name; KeyError if the catalogue lacks it."""
        if name not in self._live:
            self._live[name] = self._make(CATALOGUE[name])
        return self._live[name]

    def _make(self, metric: Metric) -> MetricWrapperBase:
        options: dict[str, Any] = {"registry": self._registry}
        if metric.kind == "histogram":
            options["buckets"] = metric.buckets
        if metric.kind == "gauge":
            options["multiprocess_mode"] = self._mode
        make: Callable[..., MetricWrapperBase] = _KINDS[metric.kind]
        return make(metric.name, metric.help, metric.labels, **options)
