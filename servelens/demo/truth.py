"""What the verdicts ought to say, worked out without the stream: which columns really moved, and what was counted."""

from typing import Final

from detectors import fence
from detectors.fence import Fold
from detectors.pane import Pane
from detectors.profile import Profile
from detectors.statistics import Settings, examine
from servelens.contract.table import Table
from servelens.demo.flights import Flights
from servelens.demo.model import LateArrival
from servelens.io.kafka import consumer, partition_count, read_all
from servelens.io.kafka_settings import KafkaSettings

STATISTICS: Final = Settings()


def table(flights: Flights, model: LateArrival) -> Table:
    """Features and score of some flights, as reference or as stream."""
    return Table.of({**flights.columns, "score": model.predict(flights.columns)[:, 1]}, len(flights))


def moved(profile: Profile, flights: Flights, model: LateArrival) -> dict[str, float]:
    """Column → effect, of the columns whose difference over all these flights at once is beyond the gate."""
    pane = Pane.of(profile, table(flights, model))
    tests = examine(profile, pane, STATISTICS)
    return {test.column: test.effect for test in tests if test.effect >= STATISTICS.min_effect}


def rows_counted(kafka: KafkaSettings, topic: str) -> int:
    """Rows in the accepted batches of a panes topic, by folding it from its beginning."""
    client = consumer(kafka)
    partitions = partition_count(client, topic)
    client.close()
    rows = 0
    for partition in range(partitions):
        fold = Fold()
        for record in read_all(kafka, topic, partition):
            outcome = fold.apply(record.offset, fence.decode(record.value))
            rows += sum(pane["rows"] for _, pane in outcome.panes) if outcome.verdict == "accepted" else 0
    return rows
