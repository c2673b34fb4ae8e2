"""Commands one runs before anything serves: topics, dashboards. Part of the command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from servelens.contract.topics import DEFAULT_PARTITIONS, DEFAULT_PREFIX, group_topics, shared_topics
from servelens.io.kafka_settings import KafkaSettings
from servelens.options import Prefix, connected

if TYPE_CHECKING:  # the Kafka client would weigh fifteen megabytes in every command
    from servelens.io.topics import Finding

dashboards_app = typer.Typer(no_args_is_help=True, help="Generate Grafana dashboards and Prometheus rules.")
topics_app = typer.Typer(no_args_is_help=True, help="Create and check the Kafka topics.")


@dashboards_app.command("build")
def dashboards_build(out: Annotated[Path, typer.Option(help="Folder to write to.")]) -> None:
    """Write dashboards for Grafana, alert rules for Prometheus, and their runbook."""
    from dashboards.build import build

    build(out)


@topics_app.command("apply")
@connected
def topics_apply(
    connection: KafkaSettings,
    topic_prefix: Prefix = DEFAULT_PREFIX,
    group: Annotated[list[str] | None, typer.Option(help="Detector group; may be repeated.")] = None,
    partitions: Annotated[int, typer.Option(help="Fixed for ever under one prefix.")] = DEFAULT_PARTITIONS,
    replication: Annotated[int, typer.Option(help="Replication factor.")] = 1,
) -> None:
    """Create the topics that are missing, then check them all."""
    from servelens.io import topics

    specs = [*shared_topics(topic_prefix, partitions)]
    specs += [spec for name in group or () for spec in group_topics(topic_prefix, partitions, name)]
    for name in topics.create(connection, specs, replication):
        typer.echo(f"created  {name}")
    _report(topics.check(connection, specs))


@topics_app.command("check")
@connected
def topics_check(
    connection: KafkaSettings,
    topic_prefix: Prefix = DEFAULT_PREFIX,
    group: Annotated[list[str] | None, typer.Option(help="Detector group; may be repeated.")] = None,
    partitions: Annotated[int, typer.Option(help="As they should be.")] = DEFAULT_PARTITIONS,
) -> None:
    """Compare the topics with what the suite needs; exit 1 if one is missing or wrong."""
    from servelens.io import topics

    specs = [*shared_topics(topic_prefix, partitions)]
    specs += [spec for name in group or () for spec in group_topics(topic_prefix, partitions, name)]
    _report(topics.check(connection, specs))


def _report(findings: Sequence["Finding"]) -> None:
    for finding in findings:
        typer.echo(str(finding))
    if any(finding.found in ("wrong", "missing") for finding in findings):
        raise typer.Exit(1)
