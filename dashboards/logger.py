"""The payload log: whether every exchange is in Kafka or accounted for, and what that costs the inference."""

import grafanalib.core as grafana

from dashboards.board import board
from dashboards.overview import LOST
from dashboards.panels import GREEN, RED, YELLOW, Step, heatmap, stat, timeseries
from dashboards.promql import aggregate, increase, quantile, rate, select, share


def build() -> grafana.Dashboard:
    """The dashboard."""
    offered, shipped = "servelens_logger_offered_total", "servelens_logger_shipped_total"
    waiting, dropped = "servelens_logger_waiting", "servelens_logger_dropped_total"
    duration = "servelens_request_duration_seconds"
    gap = " - ".join(f"sum({select(name)})" for name in (offered, shipped, waiting, dropped))
    return board(
        "logger",
        "Payload log",
        "Is every exchange in Kafka or accounted for, and does logging cost the inference anything?",
        offered,
        {
            "The account": [
                stat("Offered", "Exchanges whose request reached the tap.", "short", f"sum({select(offered)})"),
                stat("In Kafka", "Exchanges acknowledged by Kafka.", "short", f"sum({select(shipped)})"),
                stat(
                    "Waiting",
                    "Exchanges open, handed over or spooled, and not yet in Kafka.",
                    "short",
                    f"sum({select(waiting)})",
                    steps=[Step(GREEN), Step(YELLOW, 1000)],
                    decimals=0,
                ),
                stat(
                    "Lost",
                    "Exchanges that should be in Kafka and never will be, by whatever reason.",
                    "short",
                    f"sum({select(dropped, LOST)})",
                    steps=[Step(GREEN), Step(RED, 1)],
                    decimals=0,
                ),
                stat(
                    "Left out",
                    "Exchanges not logged on purpose: health checks, filters, our own explainer's.",
                    "short",
                    f"sum({select(dropped, LOST.replace('=~', '!~'))})",
                    decimals=0,
                ),
                stat(
                    "Unexplained",
                    "offered − in Kafka − waiting − all reasons: other than 0 for long, and something leaks.",
                    "short",
                    gap,
                    steps=[Step(RED), Step(GREEN, 0), Step(RED, 1)],
                    decimals=0,
                ),
                timeseries(
                    "Exchanges",
                    "Into the tap and out to Kafka.",
                    "ops",
                    {"offered": rate(offered), "in Kafka": rate(shipped)},
                ),
                timeseries(
                    "Not kept, by reason",
                    "Exchanges a second that are not in Kafka and will not be.",
                    "ops",
                    {"{{reason}}": rate(dropped, by=("reason",))},
                    stacked=True,
                ),
                timeseries("Backlog", "Exchanges not yet in Kafka.", "short", {"waiting": f"sum({select(waiting)})"}),
                timeseries(
                    "Buffers",
                    "Spool on disk, and captured bodies in memory.",
                    "bytes",
                    {
                        "spool": f"sum({select('servelens_logger_spool_bytes')})",
                        "captured": f"sum({select('servelens_logger_capture_bytes')})",
                    },
                ),
            ],
            "Delivery": [
                timeseries(
                    "Failed deliveries, by reason",
                    "Each is tried again; nothing is lost by them until the spool is full.",
                    "ops",
                    {"{{reason}}": rate("servelens_logger_ship_errors_total", by=("reason",))},
                    width=8,
                ),
                timeseries(
                    "Restarts, by process",
                    "Processes of the logger that died and were started again.",
                    "short",
                    {"{{process}}": increase("servelens_logger_restarts_total", by=("process",))},
                    width=8,
                ),
                timeseries(
                    "Not yet read by detectors",
                    "Payload records between the end of the log and the last batch, by partition.",
                    "short",
                    {"partition {{partition}}": aggregate("max", "servelens_detector_lag_records", by=("partition",))},
                    width=8,
                ),
            ],
            "The bridge": [
                stat(
                    "Through the bridge",
                    "Events, labels and dead letters acknowledged by Kafka.",
                    "short",
                    f"sum({select(shipped, _BRIDGE, scoped=False)})",
                ),
                stat(
                    "Waiting in the bridge",
                    "Spooled, and not yet in Kafka.",
                    "short",
                    f"sum({select(waiting, _BRIDGE, scoped=False)})",
                    steps=[Step(GREEN), Step(YELLOW, 1000)],
                    decimals=0,
                ),
                stat(
                    "Lost in the bridge",
                    "Not kept, by whatever reason: its spool was full.",
                    "short",
                    f"sum({select(dropped, _BRIDGE, LOST, scoped=False)})",
                    steps=[Step(GREEN), Step(RED, 1)],
                    decimals=0,
                ),
                timeseries(
                    "Posted events and labels",
                    "Answered with 202: they are in the bridge's spool, and on their way to Kafka.",
                    "ops",
                    {"{{type}}": rate("servelens_bridge_events_total", by=("type",))},
                    width=8,
                ),
                timeseries(
                    "Not taken, and dead letters",
                    "Posts answered with an error, and events kept as dead letters, by reason.",
                    "ops",
                    {
                        "refused: {{reason}}": rate("servelens_bridge_rejected_total", by=("reason",)),
                        "dead letter: {{reason}}": rate("servelens_bridge_dead_letters_total", by=("reason",)),
                    },
                    width=8,
                ),
                timeseries(
                    "Answering a post",
                    "From its head to the 202 after the commit.",
                    "s",
                    {f"p{q * 100:g}": quantile(q, "servelens_bridge_request_duration_seconds") for q in (0.5, 0.99)},
                    width=8,
                ),
            ],
            "The inference": [
                timeseries(
                    "Requests by status",
                    "Every exchange through the tap, logged or not.",
                    "reqps",
                    {"{{code}}": rate("servelens_requests_total", by=("code",))},
                    stacked=True,
                ),
                timeseries(
                    "Latency",
                    "From the request's head to the last byte of its answer.",
                    "s",
                    {f"p{q * 100:g}": quantile(q, duration) for q in (0.5, 0.95, 0.99)},
                ),
                heatmap(
                    "Latency, all of it",
                    "How many exchanges took how long.",
                    "s",
                    increase(f"{duration}_bucket", by=("le",)),
                ),
                timeseries(
                    "Beyond the last bucket",
                    "Share of exchanges longer than ten minutes: of these no quantile is known.",
                    "percentunit",
                    {"over 10 min": f"1 - {share(rate(f'{duration}_bucket', _LAST), rate(f'{duration}_count'))}"},
                    high=1,
                ),
                timeseries(
                    "Answered by the tap itself",
                    "Exchanges the model's server did not answer: it refused, or did not accept in time.",
                    "ops",
                    {"{{reason}}": rate("servelens_upstream_errors_total", by=("reason",))},
                ),
                timeseries(
                    "In flight",
                    "Exchanges begun and not yet answered.",
                    "short",
                    {
                        "{{inferenceservice}}": aggregate(
                            "sum", "servelens_requests_in_flight", by=("inferenceservice",)
                        )
                    },
                ),
                timeseries(
                    "Client ids left out",
                    "Request ids too long or with blanks in them, which do not go into events.",
                    "ops",
                    {"unfit": rate("servelens_logger_requestid_dropped_total")},
                    width=24,
                ),
            ],
        },
    )


_BRIDGE = 'component="bridge"'
_LAST = r'le=~"600(\\.0)?"'
