"""Profiles on the command line: built from a file or from a stretch of the topic, shown, compared, announced.

I/O and words; what a profile is stands in `profile`. Called by `servelens profile`.
"""

import hashlib
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import Progress
from rich.table import Table as Rows

from detectors import activation, stretch
from detectors.difference import differences
from detectors.profile import Choices, Profile, Segment, build_profile
from detectors.profile_file import read_profile, write_profile
from detectors.seasons import COUNTS, season_of
from servelens.contract.errors import ConfigError
from servelens.contract.schema import ModelSchema, parse_model
from servelens.contract.table import Table
from servelens.contract.times import rfc3339
from servelens.contract.topics import Topics
from servelens.io.kafka import producer
from servelens.io.kafka_settings import KafkaSettings
from servelens.io.tables import read_table, read_times
from servelens.io.topics import partition_counts

SEND_TIMEOUT: Final = 30.0  # seconds


@dataclass(frozen=True, slots=True)
class Asked:
    """What `profile build` was told of the reference, beside its rows."""

    season: str = ""
    time_column: str = ""
    segment: str = ""
    series: tuple[str, ...] = ()


def build(data: Path, model_file: Path, out: Path, asked: Asked | None = None, now_us: int | None = None) -> Profile:
    """Build and write a profile from a file; ConfigError names the file, column or setting at fault."""
    asked = asked or Asked()
    model = parse_model(_read(model_file, "--model-file"))
    provenance = {"file": data.name, "sha256": hashlib.sha256(_read(data, "DATA")).hexdigest()}
    if now_us is not None:
        provenance["time"] = rfc3339(now_us)
    table, times = read_table(data, model), None
    if asked.season:
        if not asked.time_column:
            raise ConfigError("--time-column", "is needed for --season", "Name the column that says when a row was.")
        times = read_times(data, asked.time_column)
    return _build(table, model, provenance, out, asked, times)


def build_from_topic(
    kafka: KafkaSettings, prefix: str, times: tuple[int, int], model_file: Path, out: Path, asked: Asked | None = None
) -> Profile:
    """Build and write a profile from what the model answered in [from, to), Unix microseconds."""
    model, topic = parse_model(_read(model_file, "--model-file")), Topics(prefix).payloads
    with Console(stderr=True).status(f"Reading {topic} …"):
        found = stretch.read(kafka, topic, stretch.between(kafka, topic, *times), model, times)
    table, moments = found.table()
    provenance = {"topic": topic, "from": rfc3339(times[0]), "to": rfc3339(times[1])}
    if found.unread:
        provenance["unread"] = ", ".join(f"{count} {reason}" for reason, count in sorted(found.unread.items()))
    return _build(table, model, provenance, out, asked or Asked(), moments)


def _build(
    table: Table, model: ModelSchema, provenance: dict[str, str], out: Path, asked: Asked, times: Any | None
) -> Profile:
    if asked.season and asked.season not in COUNTS:
        raise ConfigError("--season", f"{asked.season!r} is none", f"Use one of {', '.join(COUNTS)}.")
    choices = Choices(
        season=asked.season,
        season_of_row=season_of(asked.season, times) if asked.season and times is not None else None,
        segment=_segment(asked.segment),
        series=asked.series or None,
    )
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Freezing bins")
        profile = build_profile(
            *(table, model, provenance, choices),
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_profile(profile, out)
    _show(profile)
    Console().print(f"wrote {out}")
    return profile


def _segment(text: str) -> Segment | None:
    column, equals, value = text.partition("=")
    if text and not (column and equals):
        raise ConfigError("--segment", f"{text!r} is no COLUMN=VALUE", "Write --segment country=CH.")
    return Segment(column, value) if text else None


def _read(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(setting, f"cannot read {path} ({error.strerror})", "Give a readable file.") from error


def show(path: Path) -> None:
    """Print a profile: where it came from, its columns, what to know before relying on it."""
    profile = read_profile(path)
    console = Console()
    for name, value in sorted(profile.provenance.items()):
        console.print(f"{name}: {value}", highlight=False)
    for name, value in (("season", profile.season), ("segment", str(profile.segment or ""))):
        if value:
            console.print(f"{name}: {value}", highlight=False)
    _show(profile)


def _show(profile: Profile) -> None:
    console = Console()
    shown = Rows(title=f"{profile.identity} · {profile.rows} rows · {profile.digest[:12]}")
    for heading in ("column", "family", "kind", "bins", "nulls", "range", "design effect", "independent rows"):
        shown.add_column(heading)
    for column in profile.columns:
        bins, nulls = str(column.bins.size), f"{column.null_rate:.1%}"
        span = "" if column.low is None else f"{column.low:.4g} … {column.high:.4g}"
        facts = (column.name, column.family, column.kind, bins, nulls, span)
        shown.add_row(*facts, f"{column.deff:.2f}", f"{column.independent:,.0f}")
    console.print(shown)
    for warning in profile.warnings:
        console.print(f"warning: {warning}")


def diff(old: Path, new: Path) -> None:
    """Print what has changed between two profiles."""
    before, after = read_profile(old), read_profile(new)
    shown = Rows(title=f"{before.digest[:12]} ({before.rows} rows) → {after.digest[:12]} ({after.rows} rows)")
    for heading in ("column", "what", "effect", "nulls", "design effect"):
        shown.add_column(heading)
    for one in differences(before, after):
        effect = "" if one.effect is None else f"{one.effect:.3f}"
        nulls, deff = f"{one.nulls[0]:.1%} → {one.nulls[1]:.1%}", f"{one.deff[0]:.2f} → {one.deff[1]:.2f}"
        shown.add_row(one.column, one.what, effect, nulls, deff)
    Console().print(shown)


def activate(path: Path, kafka: KafkaSettings, prefix: str, from_us: int, now_us: int) -> Profile:
    """Announce a profile from a moment on; ConfigError for one so near that a worker may not have heard of it."""
    profile, topic = read_profile(path), Topics(prefix).profiles
    if from_us - now_us < activation.NOTICE * 1_000_000:
        remedy = f"Give a moment {activation.NOTICE:.0f} s ahead or more: every worker must have heard of it."
        raise ConfigError("--at", f"{rfc3339(from_us)} is too near", remedy)
    if not partition_counts(kafka, [topic])[topic]:
        raise ConfigError("--topic-prefix", f"there is no topic {topic}", "Run: servelens topics apply")
    with closing(producer(kafka)) as client:
        for key, value in activation.records(profile, from_us):
            client.send(topic, key=key, value=value, partition=0).get(SEND_TIMEOUT)
    Console().print(f"{profile.digest[:12]} counts {profile.identity} from {rfc3339(from_us)} on")
    return profile
