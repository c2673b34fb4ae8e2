"""`servelens profile`: build, show, compare and announce profiles. Part of the command line."""

import time
from pathlib import Path
from typing import Annotated

import typer

from servelens.contract import settings as spelled
from servelens.contract.errors import ConfigError, PayloadError
from servelens.contract.times import US, unix_us
from servelens.contract.topics import DEFAULT_PREFIX
from servelens.io.kafka_settings import KafkaSettings
from servelens.options import Prefix, connected

profile_app = typer.Typer(no_args_is_help=True, help="Build and show profiles: the reference a model is compared with.")

Out = Annotated[Path, typer.Option(help="Where to write NAME.profile.")]
ModelFile = Annotated[Path, typer.Option(help="The model's model.yaml.")]


@profile_app.command("build")
@connected
def build(
    connection: KafkaSettings | None,
    model_file: ModelFile,
    out: Out,
    data: Annotated[Path | None, typer.Argument(help="Reference rows in time order, CSV or Parquet.")] = None,
    season: Annotated[str, typer.Option(help="hour-of-day or hour-of-week: a reference for each.")] = "",
    time_column: Annotated[str, typer.Option(help="With --season: when a row was.")] = "",
    segment: Annotated[str, typer.Option(help="Only these rows, in a profile of their own.", metavar="COL=VAL")] = "",
    series: Annotated[list[str] | None, typer.Option(help="Column for /metrics; may be repeated.")] = None,
    from_: Annotated[str, typer.Option("--from", help="Where the stretch begins, RFC 3339.")] = "",
    to: Annotated[str, typer.Option("--to", help="Where it ends.")] = "",
    topic_prefix: Prefix = DEFAULT_PREFIX,
) -> None:
    """Freeze the bins and counts of reference rows into a profile."""
    from detectors import build as building

    asked = building.Asked(season, time_column, segment, tuple(series or ()))
    if (connection is None) == (data is None):
        raise ConfigError("DATA", "is missing, or given beside --kafka", "Give a file, or --kafka --from --to.")
    if data is not None:
        building.build(data, model_file, out, asked)
    elif connection is not None:
        times = (_moment(from_, "--from"), _moment(to, "--to"))
        building.build_from_topic(connection, topic_prefix, times, model_file, out, asked)


def _moment(text: str, flag: str) -> int:
    try:
        return unix_us(text, flag)
    except PayloadError as error:
        raise ConfigError(flag, error.problem, "Write it as 2026-01-31T08:00:00Z.") from error


@profile_app.command("show")
def show(file: Annotated[Path, typer.Argument(help="A NAME.profile.")]) -> None:
    """Print what a profile knows, and what to know before relying on it."""
    from detectors import build as building

    building.show(file)


@profile_app.command("diff")
def diff(
    old: Annotated[Path, typer.Argument(help="A NAME.profile.")],
    new: Annotated[Path, typer.Argument(help="Another one of the same model.")],
) -> None:
    """Print what has changed from one profile to another, column by column."""
    from detectors import build as building

    building.diff(old, new)


@profile_app.command("activate")
@connected
def activate(
    connection: KafkaSettings,
    file: Annotated[Path, typer.Argument(help="The NAME.profile that is to count.")],
    at: Annotated[str, typer.Option(help="From when on, RFC 3339; it must be 90 s ahead.")] = "",
    within: Annotated[str, typer.Option("--in", help="Or how long from now.")] = "2m",
    topic_prefix: Prefix = DEFAULT_PREFIX,
) -> None:
    """Announce a profile to every detector: from a moment on it counts instead of the model's last one."""
    from detectors import build as building

    now = time.time_ns() // 1000
    moment = _moment(at, "--at") if at else now + round(spelled.duration(within, "--in") * US)
    building.activate(file, connection, topic_prefix, moment, now)
