"""`servelens detector` and `servelens dlq`: drift verdicts, and the letters of what could not be read. Command line."""

from pathlib import Path
from typing import Annotated

import typer

from servelens.contract import settings as spelled
from servelens.contract.errors import ConfigError
from servelens.contract.topics import DEFAULT_PREFIX
from servelens.io.kafka_settings import KafkaSettings
from servelens.options import Prefix, connected

dlq_app = typer.Typer(no_args_is_help=True, help="Dead letters of a detector group: look at them, replay them.")
Group = Annotated[str, typer.Option(help="The detector group.", metavar="ID")]


def detector(
    connection: KafkaSettings,
    group: Group,
    profiles: Annotated[Path | None, typer.Option(help="Folder of *.profile files; else the announced ones.")] = None,
    listen: Annotated[str, typer.Option(help="Page, API, health and metrics.", metavar="H:P")] = "0.0.0.0:8093",
    topic_prefix: Prefix = DEFAULT_PREFIX,
    token_file: Annotated[Path | None, typer.Option(help="Token of the page and the API; without: neither.")] = None,
    slot: Annotated[str, typer.Option(help="Event-time slot; one value per group.")] = "10s",
    lateness: Annotated[str, typer.Option(help="How long a slot waits for late events.")] = "30s",
    role: Annotated[str, typer.Option(help="all, worker or evaluator.")] = "all",
    lease: Annotated[str, typer.Option(help="A silent evaluator is replaced after this.")] = "5s",
    silence: Annotated[str, typer.Option(help="A silent partition stops holding windows after this.")] = "60s",
    window_rows: Annotated[int, typer.Option(help="Rows at which a window closes.")] = 1000,
    shortest_window: Annotated[str, typer.Option(help="Event time a window spans at least.")] = "1m",
    longest_window: Annotated[str, typer.Option(help="After this it closes with 100 rows or more.")] = "15m",
    heartbeat: Annotated[str, typer.Option(help="A verdict is published so often though nothing changed.")] = "1h",
    false_alarms_per_model_year: Annotated[float, typer.Option(help="What every alpha is derived from.")] = 1.0,
) -> None:
    """Count payloads against profiles and say when a model's inputs or predictions have drifted."""
    from detectors.service import Detector
    from detectors.settings import DetectorSettings
    from detectors.statistics import Settings, alpha_for
    from servelens.io import http, logs

    logs.configure(f"detector-{role}")
    shortest = spelled.whole_seconds(shortest_window, "--shortest-window")
    if not 0 < false_alarms_per_model_year < 1e6:
        raise ConfigError(
            "--false-alarms-per-model-year", f"{false_alarms_per_model_year} is none", "Give one above 0."
        )
    service = Detector(
        DetectorSettings(
            kafka=connection,
            topic_prefix=topic_prefix,
            group=group,
            profiles=profiles,
            listen=listen,
            token_file=token_file,
            slot=spelled.whole_seconds(slot, "--slot"),
            lateness=spelled.whole_seconds(lateness, "--lateness"),
            role=role,
            lease=spelled.duration(lease, "--lease"),
            silence=spelled.duration(silence, "--silence"),
            shortest_window=shortest,
            longest_window=spelled.whole_seconds(longest_window, "--longest-window"),
            heartbeat=int(spelled.duration(heartbeat, "--heartbeat")),
            statistics=Settings(alpha=alpha_for(false_alarms_per_model_year, shortest), n_target=window_rows),
        )
    )
    http.announce(listening=service.open())
    service.run()


@dlq_app.command("show")
@connected
def dlq_show(
    connection: KafkaSettings,
    group: Group,
    topic_prefix: Prefix = DEFAULT_PREFIX,
) -> None:
    """Count the dead letters of a group, and those not yet replayed by reason."""
    from detectors import replay

    box = replay.look(connection, topic_prefix, group)
    typer.echo(f"{box.letters} letters, {box.waiting} not yet replayed")
    for reason, count in box.reasons.most_common():
        typer.echo(f"{count:8} {reason}")


@dlq_app.command("replay")
@connected
def dlq_replay(
    connection: KafkaSettings,
    group: Group,
    reason: Annotated[str, typer.Option(help="Only these; the others are passed over for good.")] = "",
    topic_prefix: Prefix = DEFAULT_PREFIX,
) -> None:
    """Send a group's dead letters to it once more, each one time."""
    from detectors import replay

    sent = replay.replay(connection, topic_prefix, group, reason)
    typer.echo(f"{sum(sent.values())} replayed")
    for why, count in sent.most_common():
        typer.echo(f"{count:8} {why}")
