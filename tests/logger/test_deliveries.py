"""How long rows took to Kafka, and the spans of those that are traced: told what was sent and what landed."""

from prometheus_client import CollectorRegistry

from logger.deliveries import Deliveries
from servelens.contract.events import EXCHANGE_TYPE, KSERVE_TYPE
from servelens.contract.identity import new_exchange_id
from servelens.contract.metrics import Instruments
from servelens.contract.tracecontext import SpanValues, context_of

SERVICE = ("shop", "risk", "predictor")
NAME = "kserve_logger_delivery_duration_seconds"


class Watched:
    def __init__(self, *, traced: bool = True) -> None:
        self.now, self.spans = 1_000_000_000, list[SpanValues]()
        self.registry = CollectorRegistry()
        record = self.spans.append if traced else None
        self.deliveries = Deliveries("t.payloads", Instruments(self.registry), SERVICE, record, lambda: self.now)

    def seen(self, kind: str) -> tuple[float, float]:
        self.deliveries.flush()
        labels = dict(zip(("namespace", "inferenceservice", "component"), SERVICE, strict=True)) | {"type": kind}
        found = [self.registry.get_sample_value(f"{NAME}_{part}", labels) or 0.0 for part in ("count", "sum")]
        return found[0], round(found[1], 9)


def headers(kind: str, traceparent: str = "", exchangeid: str = "") -> list[tuple[str, bytes]]:
    given = {"ce_type": kind, "ce_traceparent": traceparent, "ce_exchangeid": exchangeid}
    return [(name, value.encode()) for name, value in given.items() if value]


def test_each_kind_of_row_is_timed_from_the_sending_to_the_acknowledgement() -> None:
    watched = Watched(traced=False)
    for place, kind in enumerate((EXCHANGE_TYPE, KSERVE_TYPE["request"], KSERVE_TYPE["response"])):
        watched.deliveries.sent((1, place), headers(kind))
    watched.now += 250_000_000
    watched.deliveries.landed([(1, 0), (1, 1)])
    watched.now += 250_000_000
    watched.deliveries.landed([(1, 2), (9, 9)])  # one that was never sent: let pass
    assert [watched.seen(kind) for kind in ("exchange", "request", "response")] == [(1, 0.25), (1, 0.25), (1, 0.5)]
    assert watched.spans == []


def test_rows_that_land_together_are_one_span_with_a_link_to_each_recorded_exchange() -> None:
    watched, ids = Watched(), [new_exchange_id() for _ in range(3)]
    contexts = [context_of(one, "", ratio) for one, ratio in zip(ids, (1.0, 1.0, 0.0), strict=True)]
    for place, (one, context) in enumerate(zip(ids, contexts, strict=True)):
        watched.deliveries.sent((1, place), headers(EXCHANGE_TYPE, context.traceparent, one))
        watched.now += 1000
    watched.deliveries.landed([(1, 0), (1, 1), (1, 2)])
    (span,) = watched.spans
    assert [link.spanid for link in span.links] == [context.spanid for context in contexts[:2]]
    assert (span.kind, span.start_ns, span.end_ns) == ("producer", 1_000_000_000, 1_000_003_000)
    assert dict(span.attributes)["messaging.batch.message_count"] == 3


def test_what_a_dead_producer_had_away_is_timed_anew() -> None:
    watched = Watched()
    context = context_of(one := new_exchange_id(), "", 1.0)
    row = headers(EXCHANGE_TYPE, context.traceparent, one)
    watched.deliveries.sent((1, 1), row)
    watched.deliveries.ended()
    watched.now += 10**9
    watched.deliveries.landed([(1, 1)])
    assert (watched.seen("exchange"), watched.spans) == ((0, 0), [])
    watched.deliveries.sent((1, 1), row)
    watched.now += 2_000_000
    watched.deliveries.landed([(1, 1)])
    assert (watched.seen("exchange"), len(watched.spans)) == ((1, 0.002), 1)
