"""The demo on screen: the live view while it runs, the summary in words when it is over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

BARS: Final = " ▁▂▃▄▅▆▇█"
FULL: Final = 0.2  # effect at which a bar is full
STYLES: Final[Mapping[str, str]] = {
    "ok": "green",
    "suspect": "yellow",
    "drift": "bold red",
    "recovering": "cyan",
    "insufficient": "dim",
    "autocorrelated": "magenta",
}
WIDTH: Final = 30  # windows shown


@dataclass(frozen=True, slots=True)
class Scene:
    """What the live view shows at one moment."""

    phase: str
    sent: int
    failed: int
    account: Mapping[str, Any]
    verdicts: Sequence[Mapping[str, Any]]
    events: Sequence[str]


def live(scene: Scene) -> RenderableType:
    """The whole view."""
    account = scene.account
    reasons = ", ".join(f"{count} {reason}" for reason, count in account.get("reasons", {}).items() if count) or "none"
    flow = (
        f"{scene.sent} asked → {account.get('offered', 0)} offered → {account.get('shipped', 0)} in Kafka, "
        f"{account.get('waiting', 0)} waiting, dropped: {reasons}, failed: {scene.failed}"
    )
    parts: list[RenderableType] = [Panel(Text(flow), title=scene.phase, title_align="left"), _columns(scene.verdicts)]
    if scene.events:
        parts.append(Text("\n".join(scene.events[-6:]), style="dim"))
    return Group(*parts)


def _columns(verdicts: Sequence[Mapping[str, Any]]) -> Table:
    shown = Table(title=f"{len(verdicts)} windows judged", title_justify="left", expand=False)
    for heading in ("column", "state", f"effect, window by window (full bar = {FULL})", "newest"):
        shown.add_column(heading)
    newest = verdicts[-1]["columns"] if verdicts else []
    for number, column in enumerate(newest):
        effects = [verdict["columns"][number].get("effect") or 0.0 for verdict in verdicts[-WIDTH:]]
        states = [verdict["columns"][number]["state"] for verdict in verdicts[-WIDTH:]]
        bars = Text()
        for effect, state in zip(effects, states, strict=True):
            bars.append(BARS[min(8, round(8 * effect / FULL))] or " ", STYLES[state])
        state = Text(column["state"], STYLES[column["state"]])
        shown.add_row(column["column"], state, bars, f"{effects[-1]:.3f}")
    return shown


@dataclass(frozen=True, slots=True)
class Check:
    """One thing the run had to show: whether it held, and in words what was seen."""

    name: str
    held: bool
    words: str


def summary(checks: Sequence[Check], facts: Sequence[str], console: Console) -> None:
    """The end of the run."""
    shown = Table(title="What was to be shown", title_justify="left", show_lines=False)
    for heading in ("", "promise", "seen"):
        shown.add_column(heading, overflow="fold")
    for check in checks:
        shown.add_row(Text("held", "green") if check.held else Text("BROKEN", "bold red"), check.name, check.words)
    console.print(shown)
    for fact in facts:
        console.print(fact, highlight=False)
