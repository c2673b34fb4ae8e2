"""The logger against nginx `proxy_pass`, under a load it can hold, and with Kafka away: three measures, one run.

    python tests/bench/logger/bench_logger.py                    # a short form of everything: under three minutes
    python tests/bench/logger/bench_logger.py all                # as published: about 35 minutes on two cores
    python tests/bench/logger/bench_logger.py burst|sustained|outage [--bodies "4 KiB,mix"] [--connections 16] …

With two cores or more, forwarders (nginx's worker, the tap) are pinned to core 0, client and predictor to core 1, and
nothing else is: recorder, shipper and broker take what is left of both. Prints Markdown; raw figures go to `--out`.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[3])]

import burst  # noqa: E402
import outage  # noqa: E402
import sustained  # noqa: E402
import tables  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402
from rig import Rig, rig  # noqa: E402
from traffic import BODIES  # noqa: E402

MEASURES = ("burst", "sustained", "outage")


@dataclass(frozen=True)
class Form:
    """The plans of one run."""

    burst: burst.BurstPlan
    sustained: sustained.SustainedPlan
    outage: outage.OutagePlan


FULL = Form(
    burst.BurstPlan(BODIES, (16, 64), rounds=3, seconds=2.0, burst_seconds=30.0),
    sustained.SustainedPlan(trials=6, trial_seconds=12.0, seconds=300.0),
    outage.OutagePlan(up=30.0, down=600.0, back=60.0, rate=1000.0),
)
SHORT = Form(
    burst.BurstPlan(BODIES, (16,), rounds=1, seconds=1.0, burst_seconds=4.0),
    sustained.SustainedPlan(trials=4, trial_seconds=5.0, seconds=10.0, attempts=1),
    outage.OutagePlan(up=8.0, down=15.0, back=8.0, rate=1000.0),
)


def form(options: argparse.Namespace) -> Form:
    """The form asked for, with what flags change in it."""
    base = SHORT if options.measure == "short" else FULL
    minutes = {"seconds": options.minutes * 60} if options.minutes else {}
    away = {"down": options.outage_minutes * 60} if options.outage_minutes else {}
    return Form(
        replace(base.burst, **_given(options, "rounds", "seconds", "burst_seconds", "bodies", "connections")),
        replace(base.sustained, **_given(options, "trials", "trial_seconds"), **minutes),
        replace(base.outage, **_given(options, "up", "back", "rate", "away"), **away),
    )


def _given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", nargs="?", default="short", choices=("short", "all", *MEASURES))
    parser.add_argument("--bodies", type=lambda text: text.split(","), help=f"of {', '.join(BODIES)}")
    parser.add_argument("--connections", type=lambda text: [int(one) for one in text.split(",")])
    parser.add_argument("--rounds", type=int, help="of each cell of the burst grid")
    parser.add_argument("--seconds", type=float, help="of each slice of a round")
    parser.add_argument("--burst-seconds", type=float)
    parser.add_argument("--trials", type=int, help="of the search for the sustained rate")
    parser.add_argument("--trial-seconds", type=float)
    parser.add_argument("--minutes", type=float, help="the sustained rate is held")
    parser.add_argument("--outage-minutes", type=float, help="Kafka is away")
    parser.add_argument("--up", type=float, help="seconds before the outage")
    parser.add_argument("--back", type=float, help="seconds after it")
    parser.add_argument("--rate", type=float, help="exchanges a second during the outage")
    parser.add_argument("--away", choices=("frozen", "killed"), help="what becomes of Kafka")
    parser.add_argument("--no-pinning", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("bench-out/logger.json"))
    return parser.parse_args()


def cores(pinning: bool) -> tuple[list[int], list[int]]:
    """Those of forwarders, and those of client and predictor."""
    here = sorted(os.sched_getaffinity(0))
    return ([here[0]], [here[1]]) if pinning and len(here) > 1 else ([], [])


def measure(made: Rig, plans: Form, wanted: tuple[str, ...]) -> tuple[dict[str, Any], list[str]]:
    """The raw figures, and the tables."""
    raw: dict[str, Any] = {}
    shown: list[str] = []
    if "burst" in wanted:
        slices = burst.run(made, plans.burst)
        raw["burst"] = [one.plain() for one in slices]
        shown += ["Logging off, beside nginx with one worker", tables.row_one(slices)]
        shown += [f"Bursts of {plans.burst.burst_seconds:.0f} s, both bodies logged", tables.row_two(slices)]
    if "sustained" in wanted:
        trials, held = sustained.run(made, plans.sustained)
        raw["sustained"] = {"trials": [one.plain() for one in trials], "held": held.plain()}
        shown += ["Sustained", tables.sustained(held)]
    if "outage" in wanted:
        told = outage.run(made, plans.outage)
        raw["outage"] = told.plain()
        shown += ["Kafka away", tables.outage(told)]
    return raw, shown


def main() -> None:
    options = _parse()
    plans, wanted = form(options), MEASURES if options.measure in ("short", "all") else (options.measure,)
    front, back = cores(not options.no_pinning)
    console = Console(width=None if sys.stdout.isatty() else 100)
    columns = (TextColumn("{task.description}", justify="left"), BarColumn(), TimeElapsedColumn())
    began = time.monotonic()
    with rig(front, back, Progress(*columns, console=console, refresh_per_second=2)) as made:
        redaction = "with redaction" if made.redacts else "this logger has no --rules: without redaction"
        pinned = f"forwarders on core {front[0]}, client and predictor on core {back[0]}" if front else "nothing pinned"
        console.print(f"{made.kafka.name}; {os.cpu_count()} cores, {pinned}; {redaction}")
        raw, shown = measure(made, plans, wanted)
    raw |= {"broker": made.kafka.name, "cores": os.cpu_count(), "pinned": [front, back], "form": repr(plans)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(raw, indent=1))
    options.out.with_suffix(".md").write_text("\n\n".join(shown) + "\n")
    for part in shown:
        print(part, end="\n\n")  # not by the console, which would wrap the tables
    print(f"{time.monotonic() - began:.0f} s; {options.out}, {options.out.with_suffix('.md')}")


if __name__ == "__main__":
    main()
