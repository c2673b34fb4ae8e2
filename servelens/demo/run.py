"""`servelens demo`: prepare, start, ask winter, then summer, kill what was asked to be killed, wait, judge.

Called by the command line; returns whether every promise held.
"""

import asyncio
import shutil
import statistics
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv
from rich.console import Console
from rich.live import Live

from detectors.build import build
from detectors.profile import Profile
from servelens.contract.errors import StateError
from servelens.contract.times import slot_of
from servelens.demo import explained, judge, truth, view
from servelens.demo.flights import Flights, Seasons, load, model_yaml
from servelens.demo.model import LateArrival
from servelens.demo.stack import GROUP, LATENESS, SLOT, Stack, metrics
from servelens.demo.traffic import ROWS, Ledger, drive
from servelens.demo.verdicts import Watch, shipped

SEASON_ROWS: Final = 16_000  # asked of each season
KILLABLE: Final = ("recorder", "shipper", "tap", "predictor", "worker", "evaluator")


@dataclass(slots=True)
class Stage:
    """One run: what it is made of and what has happened so far."""

    stack: Stack
    console: Console
    ledger: Ledger = field(default_factory=Ledger)
    kills: list[judge.Kill] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    phase: str = "starting"
    shift_slot: int = 0
    began: float = field(default_factory=time.monotonic)

    def note(self, words: str) -> None:
        """A line under the live view."""
        self.events.append(f"{time.monotonic() - self.began:5.1f} s  {words}")


def run(out: Path, kafka: str | None, kill: Sequence[str], keep: bool, seed: int) -> bool:
    """The whole demo; whether everything held. Everything it writes is under `out`."""
    for name in kill:
        if name not in KILLABLE:
            raise StateError(f"--kill: {name!r} cannot be killed; known are {', '.join(KILLABLE)}")
    console = Console()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    prefix = "demo" if kafka is None else f"demo-{uuid.uuid4().hex[:8]}"
    stage = Stage(Stack(out.resolve(), prefix, seed, kafka or ""), console)
    with stage.stack.supervised():
        stage.stack.start_broker()
        stage.stack.start_serving()
        seasons, model, profile = _prepare(stage.stack.out, seed, console)
        background = explained.write_artifact(stage.stack.out / "explainer", seasons.reference)
        stage.stack.start_detectors()
        stage.stack.start_explainer()
        stage.stack.wait_ready()
        watch = Watch(stage.stack.settings, stage.stack.topics.verdicts)
        reader = threading.Thread(target=watch.run, daemon=True)
        reader.start()
        _play(stage, watch, seasons, kill)
        told = _explain(stage, seasons, background, model)
        stage.stack.wait("the spool", lambda: stage.stack.spool()["waiting"] == 0)
        verdict = _judge(stage, watch, seasons, model, profile, told)
        watch.stop.set()
        reader.join()
        if keep:
            _hold(stage)
    return verdict


def _prepare(out: Path, seed: int, console: Console) -> tuple[Seasons, LateArrival, Profile]:
    """Reference rows and `model.yaml` as files, and the profile built from them."""
    console.print("Reading 2013's flights and freezing winter's reference …")
    seasons = load(seed)
    model = LateArrival(seasons.train, seed)
    reference = truth.table(seasons.reference, model)
    (out / "model.yaml").write_text(model_yaml())
    pyarrow.csv.write_csv(pa.table(dict(reference.columns)), out / "reference.csv")
    profile = build(out / "reference.csv", out / "model.yaml", out / "profiles" / "flights.profile")
    return seasons, model, profile


def _play(stage: Stage, watch: Watch, seasons: Seasons, kill: Sequence[str]) -> None:
    """Traffic of both seasons, and kills spread evenly over it, under the live view."""
    done = threading.Event()
    killer = threading.Thread(target=_kill_in_turn, args=(stage, kill, 2 * SEASON_ROWS // ROWS, done), daemon=True)
    with Live(console=stage.console, refresh_per_second=4, transient=True) as screen:
        painter = threading.Thread(target=_paint, args=(stage, watch, screen, done), daemon=True)
        painter.start()
        killer.start()
        for name, season in (
            ("winter, which the model knows", seasons.winter),
            ("summer, which it does not", seasons.summer),
        ):
            stage.phase = name
            if season is seasons.summer:
                stage.shift_slot = slot_of(time.time_ns() // 1000, SLOT)
                stage.note("the shift: summer begins")
            asyncio.run(drive(stage.stack.tap, season, stage.ledger, SEASON_ROWS))
        killer.join(60)
        stage.phase = "traffic over; waiting for the last verdicts"
        _drain(stage)
        done.set()
        painter.join()


def _explain(stage: Stage, seasons: Seasons, background: Flights, model: LateArrival) -> explained.Explained:
    """The second flow: a few of summer's flights, which the model does not know so well."""
    flights = seasons.summer.take(np.arange(explained.EXPLAINED))
    stack = stage.stack
    return explained.explain(stack.explainer, flights, background, model, stack.out / "explanation.html")


def _kill_in_turn(stage: Stage, names: Sequence[str], requests: int, done: threading.Event) -> None:
    for number, name in enumerate(names, 1):
        while stage.ledger.sent < requests * number / (len(names) + 1):
            if done.wait(0.02):
                return
        target = stage.stack.active_evaluator() if name == "evaluator" else name
        pid, at = stage.stack.kill(target)
        stage.note(f"SIGKILL {target} ({pid})")
        back = None
        if name == "predictor":
            stage.stack.wait_replaced("predictor", pid)
            back = time.time()
            stage.note("predictor listens again")
        stage.kills.append(judge.Kill(name, at, back))


def _paint(stage: Stage, watch: Watch, screen: Live, done: threading.Event) -> None:
    while not done.wait(0.25):
        try:
            account = stage.stack.spool()
        except httpx.HTTPError:
            account = {}
        scene = view.Scene(
            stage.phase, stage.ledger.sent, len(stage.ledger.failures), account, watch.ordered(), stage.events
        )
        screen.update(view.live(scene))


def _drain(stage: Stage) -> None:
    """Until the spool is empty and every slot with traffic has been judged or is known not to fill a window."""
    stack, last = stage.stack, slot_of(time.time_ns() // 1000, SLOT)
    stack.wait("the spool", lambda: stack.spool()["waiting"] == 0)
    stack.wait("the evaluator", lambda: _watermark(stack) >= last + LATENESS + 2)
    time.sleep(1.0)  # the last cut travels through the journal


def _watermark(stack: Stack) -> float:
    found = [
        float(line.rsplit(" ", 1)[1])
        for name, address in stack.detectors.items()
        if name.startswith("evaluator")
        for line in metrics(address).splitlines()
        if line.startswith("servelens_evaluator_watermark_seconds ")
    ]
    return max(found, default=0.0) / SLOT


def _judge(
    stage: Stage, watch: Watch, seasons: Seasons, model: LateArrival, profile: Profile, told: explained.Explained
) -> bool:
    stack = stage.stack
    outcome = judge.Run(
        ledger=stage.ledger,
        account=stack.spool(),
        shipped=shipped(stack.settings, stack.topics.payloads),
        rows_per_exchange=ROWS,
        rows_counted=truth.rows_counted(stack.settings, stack.topics.panes(GROUP)),
        verdicts=watch.ordered(),
        shift_slot=stage.shift_slot,
        moved=truth.moved(profile, seasons.summer, model),
        kills=stage.kills,
        explained=told,
        page=stack.page(),
    )
    checks = list(judge.checks(outcome))
    view.summary(checks, _facts(stage, outcome), stage.console)
    (stack.out / "summary.json").write_bytes(
        orjson.dumps(
            {
                "held": all(check.held for check in checks),
                "checks": [{"name": check.name, "held": check.held, "seen": check.words} for check in checks],
                "account": outcome.account,
                "events": stage.events,
                "verdicts": outcome.verdicts,
            },
            option=orjson.OPT_INDENT_2,
        )
    )
    return all(check.held for check in checks)


def _facts(stage: Stage, outcome: judge.Run) -> list[str]:
    moved = ", ".join(f"{column} by {effect:.3f}" for column, effect in outcome.moved.items())
    median = statistics.median(stage.ledger.latencies or [0.0]) * 1000
    restarts = sum(child.restarts for child in stage.stack.children.values()) + sum(
        outcome.account["restarts"].values()
    )
    said, error = outcome.explained.attributions[0], outcome.explained.errors[0]
    order = sorted(said, key=lambda name: -abs(said[name]))
    why = ", ".join(f"{name} {said[name]:+.3f} ± {2 * error[name]:.3f}" for name in order[:4])
    return [
        *stage.events,
        f"Why the model rates a summer flight as it does: {why}; as a page: {stage.stack.out}/explanation.html",
        f"What really moved between the seasons: {moved}.",
        f"Median answer through the tap: {median:.1f} ms. Restarts: {restarts}.",
        f"Everything written is under {stage.stack.out}; it took {time.monotonic() - stage.began:.0f} s.",
    ]


def _hold(stage: Stage) -> None:
    """Leave everything up, for a look around."""
    stack = stage.stack
    stage.console.print(f"tap http://{stack.tap}  admin http://{stack.admin}/metrics  Kafka {stack.settings.bootstrap}")
    for name, address in stack.detectors.items():
        stage.console.print(f"{name} http://{address}/metrics")
        if name.startswith("evaluator"):
            stage.console.print(f"  its page: http://{address}/ (any user, password {stack.token.read_text()})")
    stage.console.print(f"explainer http://{stack.explainer}/metrics  try:")
    stage.console.print(explained.curl(stack.explainer), soft_wrap=True, highlight=False)
    stage.console.print("Ctrl-C ends it all.")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        stage.console.print("ending …")
