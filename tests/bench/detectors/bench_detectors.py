"""The detector's cost: a window beside Evidently, intake beside consuming alone, panes, memory, restart.

Every part prints both sides measured in this run, interleaved, medians of repeats. `--parts` chooses; all take some
twelve minutes. Windows of 1,000 columns go through in chunks of fifty, theirs and ours.
"""

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
HERE = Path(__file__).parents
sys.path[:0] = [str(HERE[2]), str(HERE[3]), str(HERE[1] / "logger")]

import lz4.frame  # noqa: E402 -- the path is made above
from bench.detectors import material  # noqa: E402
from brokers import broker as started  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table as Shown  # noqa: E402

from detectors import fence  # noqa: E402
from detectors.pane import Pane  # noqa: E402
from detectors.statistics import Settings, examine  # noqa: E402

CONSOLE = Console(width=140)
ROWS = 100_000


def seconds(work: Callable[[], Any]) -> float:
    gc.collect()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def shown(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Shown(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == headings[0] else "right")
    for row in rows:
        table.add_row(*row)
    CONSOLE.print(table)


def window(columns: int, repeats: int) -> Iterator[str]:
    """Counting and testing a window of 100,000 rows, against Evidently's preset and its stat tests alone."""
    from bench.detectors import theirs

    chunks = max(1, columns // material.CHUNK)
    ours, preset, tests = 0.0, 0.0, 0.0
    for chunk in range(chunks):
        reference, current, profile = material.wide(ROWS, min(columns, material.CHUNK), chunk)
        frames = theirs.frames(reference), theirs.frames(current)

        def judge() -> None:
            pane = Pane.of(profile, current, exchanges=current.rows)  # noqa: B023 -- called at once
            examine(profile, pane, Settings())  # noqa: B023

        mine, alone, whole = [], [], []
        for _ in range(repeats):
            mine.append(seconds(judge))
            alone.append(seconds(lambda: theirs.tests(*frames)))  # noqa: B023
        if columns <= material.CHUNK or chunk < 2:  # the preset of a thousand columns takes minutes: two chunks of it
            whole.append(seconds(lambda: theirs.preset(*frames)))  # noqa: B023
        ours += statistics.median(mine)
        tests += statistics.median(alone)
        preset += statistics.median(whole) if whole else preset / max(chunk, 1)
    scaled = "" if columns <= material.CHUNK else " (two chunks measured, scaled)"
    shown(
        f"A window of {ROWS:,} rows × {columns} columns against as many reference rows, seconds",
        ("", "ServeLens", "Evidently's preset", "its stat tests alone"),
        [
            ["seconds", f"{ours:.3f}", f"{preset:.2f}{scaled}", f"{tests:.2f}"],
            ["ratio", "1", f"{preset / ours:.0f}×", f"{tests / ours:.1f}×"],
        ],
    )
    yield f"window{columns}={ours:.3f}s(preset {preset / ours:.0f}×, tests {tests / ours:.1f}×)"


def intake(_: int, repeats: int) -> Iterator[str]:
    """One-row events of twenty columns through a worker's intake, beside taking them off a broker and no more."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="servelens-bench-") as folder, started(Path(folder) / "broker") as broker:
        for form in ("v1", "v2 matrix", "v2 columns"):
            profile, made = material.events(form, 4000)
            topic = material.send(broker, made, 40_000)
            alone, counted = [], []
            for _repeat in range(repeats):
                alone.append(material.consume(broker, topic, None))
                counted.append(material.consume(broker, topic, material.intake_of(profile)))
            bare, full = statistics.median(alone), statistics.median(counted)
            rows.append(
                [form, f"{len(made[0].value or b''):,} B", f"{bare:,.0f}", f"{full:,.0f}", f"{full / bare:.2f}"]
            )
            yield f"intake {form}={full:,.0f}/CPU-s(consume alone {bare:,.0f})"
        headings = ("one-row events of 20 columns", "value", "consumed alone", "consumed and counted", "ratio")
        shown(f"Events a CPU-second, {broker.name}", headings, rows)


def panes(_: int, repeats: int) -> Iterator[str]:
    """A pane of a thousand rows as it lies in Kafka."""
    del repeats
    rows = []
    for columns in (20, 50):
        _, current, profile = material.wide(1000, columns, 0)
        part = fence.Part("e" * 32, "payloads", 0, 1000, 0, 1, Pane.of(profile, current, exchanges=1000).to_mapping())
        raw = fence.encode(part)
        packed = len(lz4.frame.compress(raw))
        rows.append([f"{columns} columns", f"{len(raw):,}", f"{packed:,}"])
        yield f"pane{columns}={packed}B"
    shown("A pane of 1,000 rows, bytes", ("", "JSON", "lz4"), rows)


def memory(_: int, repeats: int) -> Iterator[str]:
    """500 models of fifty columns, each with its sixteen windows and a timeline, in a process of its own."""
    del repeats
    command = [sys.executable, str(Path(__file__).parent / "many_models.py")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    base, full, packed, write = (float(word) for word in done.stdout.split())
    rows = [["MiB resident", f"{base:.0f}", f"{full:.0f}", f"{(full - base) / 500 * 1024:.0f} KiB a model"]]
    rows.append(["snapshot", "", f"{packed:.1f} MiB", f"{write:.1f} s to make"])
    shown("An evaluator of 500 models × 50 columns", ("", "profiles alone", "with 16 windows each", ""), rows)
    yield f"500 models={full:.0f}MiB(profiles alone {base:.0f}), snapshot {packed:.1f}MiB in {write:.1f}s"


def restart(_: int, repeats: int) -> Iterator[str]:
    """From a snapshot 50,000 panes behind to the ends of the logs, without joining the group."""
    del repeats
    with tempfile.TemporaryDirectory(prefix="servelens-bench-") as folder, started(Path(folder) / "broker") as broker:
        evaluator, worker, size = material.restart(broker, Path(folder), 50_000)
    rows = [["seconds", f"{evaluator:.1f}", f"{worker:.1f}"]]
    rows.append(["entries a second", f"{2 * 50_000 / evaluator:,.0f}", f"{2 * 12_500 / worker:,.0f}"])
    title = f"Restart, snapshot 50,000 panes ({size / 1e6:.0f} MB) behind, {broker.name}"
    shown(title, ("", "evaluator, all four partitions", "worker, one partition"), rows)
    yield f"restart=evaluator {evaluator:.1f}s, worker {worker:.1f}s of one partition"


PARTS: dict[str, tuple[Callable[[int, int], Iterator[str]], int]] = {
    "window50": (window, 50),
    "window1000": (window, 1000),
    "intake": (intake, 0),
    "panes": (panes, 0),
    "memory": (memory, 0),
    "restart": (restart, 0),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args(arguments)
    figures = []
    for name in asked.parts.split(","):
        part, number = PARTS[name]
        figures += list(part(number, asked.repeats))
    sys.stdout.write("; ".join(figures) + "\n")


if __name__ == "__main__":
    main()
