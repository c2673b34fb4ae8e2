"""The account as metrics: offered, shipped, waiting and dropped, read from spool and account files at each scrape.

Apart from the instruments, since these numbers live in files that survive every process; called by the parent. The
same numbers also go by the names proposed for KServe's agent, so that its dashboards show ours.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from logger.account import Sum
from servelens.contract.metrics import CATALOGUE
from servelens.io.processes import Child

# What was meant to be kept and is not; the other reasons are decisions.
LOSSES: Final = ("over_budget", "unparsable", "spool_full", "spool_lost", "crash")
TYPE: Final = "exchange"  # the agent's are request and response, which we send as one

_Point = tuple[tuple[str, ...], float]


class AccountCollector(Collector):
    """`read` gives the sum; `service` the identity labels and their values."""

    def __init__(self, read: Callable[[], Sum], service: Mapping[str, str]) -> None:
        self._read, self._values = read, tuple(service.values())

    def collect(self) -> Iterator[Metric]:
        """One family a number of the account."""
        account, who = self._read(), self._values
        typed = (*who, TYPE)
        lost = sum(account.reasons.get(reason, 0) for reason in LOSSES)
        dropped = [((*who, reason), count) for reason, count in account.reasons.items()]
        families: Mapping[str, Iterable[_Point]] = {
            "servelens_logger_offered_total": [(who, account.offered)],
            "servelens_logger_shipped_total": [(who, account.shipped)],
            "servelens_logger_waiting": [(who, account.waiting)],
            "servelens_logger_dropped_total": dropped,
            "kserve_logger_events_sent_total": [(typed, account.shipped)],
            "kserve_logger_events_failed_total": [(typed, account.reasons.get("refused", 0))],
            "kserve_logger_events_dropped_total": [(typed, lost)],
            "kserve_logger_work_queue_depth": [(who, account.waiting)],
        }
        for name, points in families.items():
            yield _family(name, points)


def told(account: Sum, children: Iterable[Child]) -> Mapping[str, Any]:
    """The account and the processes, as `/spool` tells them."""
    children = list(children)
    return {
        "offered": account.offered,
        "shipped": account.shipped,
        "waiting": account.waiting,
        "reasons": dict(account.reasons),
        "adds_up": account.adds_up,
        "processes": {child.name: child.pid for child in children},
        "restarts": {child.name: child.restarts for child in children},
    }


def _family(name: str, points: Iterable[_Point]) -> Metric:
    metric = CATALOGUE[name]
    make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = make(name, metric.help, labels=metric.labels)
    for labels, value in points:
        family.add_metric(labels, value)
    return family
