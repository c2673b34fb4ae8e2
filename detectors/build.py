"""`servelens profile build`: reference rows and a `model.yaml` in, a profile file out, with progress and a table."""

import hashlib
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table as Rows

from detectors.profile import Profile, build_profile, write_profile
from servelens.contract.errors import ConfigError
from servelens.contract.schema import parse_model
from servelens.contract.times import rfc3339
from servelens.io.tables import read_table


def build(data: Path, model_file: Path, out: Path, now_us: int | None = None) -> Profile:
    """Build and write a profile; ConfigError names the file, column or setting at fault."""
    model = parse_model(_read(model_file, "--model-file"))
    raw = _read(data, "DATA")
    table = read_table(data, model)
    provenance = {"file": data.name, "sha256": hashlib.sha256(raw).hexdigest()}
    if now_us is not None:
        provenance["time"] = rfc3339(now_us)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Freezing bins")
        profile = build_profile(
            table, model, provenance, progress=lambda done, total: progress.update(task, completed=done, total=total)
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_profile(profile, out)
    _show(profile, out)
    return profile


def _read(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(setting, f"cannot read {path} ({error.strerror})", "Give a readable file.") from error


def _show(profile: Profile, out: Path) -> None:
    console = Console()
    shown = Rows(title=f"{profile.identity} · {profile.rows} rows · {profile.digest[:12]}")
    for heading in ("column", "family", "kind", "bins", "nulls", "design effect"):
        shown.add_column(heading)
    for column in profile.columns:
        bins, nulls = str(column.bins.size), f"{column.null_rate:.1%}"
        shown.add_row(column.name, column.family, column.kind, bins, nulls, f"{column.deff:.2f}")
    console.print(shown)
    for warning in profile.warnings:
        console.print(f"warning: {warning}")
    console.print(f"wrote {out}")
