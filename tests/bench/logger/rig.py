"""What all measures stand on: client, predictor and broker of one run, and how a piece of load is taken down.

`Rig.measure` is the one way a figure comes about, so that all contestants are measured alike.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gauge
from brokers import Broker, broker
from contestants import Contestant, knows, logger, nginx
from load import TICK, Ask, Client, Outcome, Predictor
from rich.progress import Progress
from traffic import RULES

WARM_UP = 0.2  # seconds of load nobody looks at
LOGGED, REDACTED, OFF, NGINX, DIRECT = "tap, logged", "tap, logged, redacted", "tap, logging off", "nginx", "direct"


@dataclass
class Slice:
    """One piece of load on one contestant. Latencies in milliseconds, `cpu` in µs an exchange, `memory` in MiB."""

    contestant: str
    body: str
    connections: int
    offered: float  # exchanges a second; 0 = closed loop
    seconds: float
    rate: float
    p50: float
    p99: float
    errors: int
    each_second: list[int]
    cpu: Mapping[str, float]
    busy: float  # share of its core the forwarder used
    memory: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    account: Mapping[str, Any] = field(default_factory=dict)
    round: int = 0

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


class Rig:
    """One run's parts. `front` are the cores of forwarders, `back` those of client and predictor; empty = anywhere."""

    def __init__(
        self, folder: Path, client: Client, predictor: Predictor, kafka: Broker, front: list[int], progress: Progress
    ) -> None:
        self.folder, self.client, self.predictor, self.kafka = folder, client, predictor, kafka
        self.front, self.progress = front, progress
        self._made = 0

    def _place(self, name: str) -> Path:
        self._made += 1
        return self.folder / f"{name}-{self._made}"

    @property
    def redacts(self) -> bool:
        """Whether this logger has a redaction to measure."""
        return knows("--rules")

    @contextmanager
    def others(self) -> Iterator[dict[str, Contestant]]:
        """Those that keep nothing from one slice to the next: direct, nginx, the tap with logging off."""
        with ExitStack() as stack:
            port = self.predictor.port
            forwarders = (
                stack.enter_context(nginx(port, self._place("nginx"), self.front)),
                stack.enter_context(logger(OFF, port, self._place("off"), self.front, "--log-mode", "none")),
            )
            yield {one.name: one for one in (Contestant(DIRECT, port), *forwarders)}

    @contextmanager
    def logging(self, redact: bool, *more: str, graceful: bool = False) -> Iterator[tuple[Contestant, str]]:
        """A logger with an empty spool and a topic of its own, whose name comes with it."""
        place = self._place("spool")
        prefix = f"bench-{place.name}"
        words = ["--kafka", self.kafka.address, "--topic-prefix", prefix, *more]
        if redact:
            rules = place.with_suffix(".yaml")
            rules.write_text(RULES)
            words += ["--rules", str(rules)]
        name = REDACTED if redact else LOGGED
        with logger(name, self.predictor.port, place, self.front, *words, graceful=graceful) as made:
            yield made, f"{prefix}.payloads"
        self.kafka.forget(f"{prefix}.payloads")

    def warm_up(self, contestant: Contestant, body: str, connections: int) -> None:
        """Load before the clock."""
        self.client.run(Ask(contestant.port, body, connections, WARM_UP))

    def measure(
        self, contestant: Contestant, body: str, connections: int, seconds: float, rate: float = 0.0, tick: float = TICK
    ) -> tuple[Slice, Outcome]:
        """A slice, and the outcome it was taken from."""
        before = gauge.cpu(contestant.processes)
        outcome = self.client.run(Ask(contestant.port, body, connections, seconds, rate, tick))
        return self.slice_of(contestant, body, connections, rate, outcome, before), outcome

    def slice_of(
        self, contestant: Contestant, body: str, connections: int, rate: float, outcome: Outcome,
        before: Mapping[str, float],
    ) -> Slice:  # fmt: skip
        """What an outcome says; `before` are the CPU seconds at its begin."""
        spent = gauge.spent(contestant.processes, before)
        count = max(1, len(outcome.latencies))
        return Slice(
            contestant=contestant.name, body=body, connections=connections, offered=rate, seconds=outcome.seconds,
            rate=outcome.rate, p50=outcome.quantile(0.5) * 1e3, p99=outcome.quantile(0.99) * 1e3,
            errors=outcome.errors, each_second=outcome.counts,
            cpu={name: seconds / count * 1e6 for name, seconds in spent.items()},
            busy=spent.get(contestant.forwarder, 0.0) / outcome.seconds,
        )  # fmt: skip


@contextmanager
def rig(front: list[int], back: list[int], progress: Progress) -> Iterator[Rig]:
    """Everything started; everything gone at the end."""
    with ExitStack() as stack:
        predictor = stack.enter_context(Predictor(back))  # forked before there are threads
        client = stack.enter_context(Client(back))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="servelens-bench-")))
        kafka = stack.enter_context(broker(folder / "kafka"))
        stack.enter_context(progress)
        yield Rig(folder, client, predictor, kafka, front, progress)
