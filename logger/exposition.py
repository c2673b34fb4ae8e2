"""The account as metrics: offered, shipped, waiting and dropped, read from spool and account files at each scrape.

Apart from the instruments, since these numbers live in files that survive every process; called by the parent.
"""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from logger.account import Sum
from servelens.contract.metrics import CATALOGUE


class AccountCollector(Collector):
    """`read` gives the sum; `service` the identity labels and their values."""

    def __init__(self, read: Callable[[], Sum], service: Mapping[str, str]) -> None:
        self._read, self._labels, self._values = read, list(service), list(service.values())

    def collect(self) -> Iterator[Metric]:
        """Offered, shipped, waiting, and one dropped series a reason."""
        account = self._read()
        yield self._counter("servelens_logger_offered_total", account.offered)
        yield self._counter("servelens_logger_shipped_total", account.shipped)
        name = "servelens_logger_waiting"
        waiting = GaugeMetricFamily(name, CATALOGUE[name].help, labels=self._labels)
        waiting.add_metric(self._values, account.waiting)
        yield waiting
        name = "servelens_logger_dropped_total"
        dropped = CounterMetricFamily(name, CATALOGUE[name].help, labels=[*self._labels, "reason"])
        for reason, count in account.reasons.items():
            dropped.add_metric([*self._values, reason], count)
        yield dropped

    def _counter(self, name: str, value: int) -> Metric:
        family = CounterMetricFamily(name, CATALOGUE[name].help, labels=self._labels)
        family.add_metric(self._values, value)
        return family
