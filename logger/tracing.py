"""The spans of recorder and shipper on their way to the collector; None of it runs without `--otlp`.

Apart from `spans`, which makes them of values, and from `servelens.io.tracing`, which sends them.
"""

import argparse
from dataclasses import dataclass, replace
from typing import Final, Self

from logger.spans import exchange_span, onward, resource_of, service_of
from servelens.contract.events import Exchange
from servelens.contract.identity import ModelIdentity
from servelens.contract.metrics import SERVICE, Instruments
from servelens.contract.tracecontext import context_of
from servelens.io import otlp
from servelens.io.tracing import OUTCOMES, Outcome, Tracer

CLOSE_SECONDS: Final = 2.0  # for what is queued when the process ends


@dataclass(frozen=True, slots=True)
class Tracing:
    """A tracer, and the share of exchanges without a client's decision that it records."""

    tracer: Tracer
    ratio: float

    @classmethod
    def of(cls, arguments: argparse.Namespace, identity: ModelIdentity, instruments: Instruments) -> Self | None:
        """What a process's arguments ask for; ConfigError names the flag at fault."""
        settings = otlp.from_arguments(arguments)
        if settings is None:
            return None
        spans = instruments["servelens_spans_total"]
        labels = {name: identity.labels()[name] for name in SERVICE}
        for outcome in OUTCOMES:
            spans.labels(**labels, result=outcome)

        def count(outcome: Outcome, number: int) -> None:
            spans.labels(**labels, result=outcome).inc(number)

        tracer = Tracer(settings, service_of(identity), resource_of(identity), count)
        return cls(tracer, arguments.trace_ratio)

    def trace(self, exchange: Exchange) -> Exchange:
        """Record the exchange's span if it is sampled; the exchange with the traceparent its event carries on."""
        context = context_of(exchange.exchangeid, exchange.traceparent, self.ratio)
        if not context.sampled:
            return exchange
        self.tracer.record(exchange_span(exchange, context))
        return replace(exchange, traceparent=onward(exchange, context))

    def close(self) -> None:
        """Send what is queued."""
        self.tracer.close(CLOSE_SECONDS)
