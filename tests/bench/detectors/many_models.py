"""500 models of fifty columns in one evaluator, each with sixteen windows; prints MiB and seconds. Its own process.

Printed: resident with the profiles alone, with everything, the snapshot's size packed, and the seconds it took.
"""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
HERE = Path(__file__).parents
sys.path[:0] = [str(HERE[2]), str(HERE[3]), str(HERE[1] / "logger")]

import psutil  # noqa: E402 -- the path is made above
from bench.detectors import material  # noqa: E402

from detectors import snapshot  # noqa: E402
from detectors.book import Book  # noqa: E402
from detectors.evaluation import Evaluation, Group  # noqa: E402
from detectors.pane import Pane  # noqa: E402
from detectors.statistics import Settings  # noqa: E402
from detectors.verdict import Circumstances  # noqa: E402
from detectors.watched import Watched  # noqa: E402
from detectors.windows import Closing, Taken  # noqa: E402

MODELS, WINDOWS = 500, 16


def resident() -> float:
    return float(psutil.Process().memory_info().rss) / (1 << 20)


def main() -> None:
    _, current, profile = material.wide(1000, 50, 0)
    profiles = []
    for number in range(MODELS):
        identity = replace(profile.identity, inferenceservice=f"m{number}")
        columns = tuple(replace(column, counts=column.counts.copy()) for column in profile.columns)
        profiles.append(replace(profile, model=replace(profile.model, identity=identity), columns=columns))
    evaluation = Evaluation(Book(profiles), Group("g", 10, Settings(), Closing()), 4)
    base = resident()
    for one in profiles:
        watched = evaluation.watched[one.digest] = Watched.start(one)
        for number in range(WINDOWS):
            pane = Pane.of(one, current, slot=number, exchanges=1000)
            about = Circumstances("g", number, number, 10)
            list(watched.judge({one.identity: Taken(pane, 0, {})}, about, Settings()))
        watched.to_mapping()
    full = resident()
    began = time.perf_counter()
    rows = list(snapshot.records(evaluation.to_mapping(), "bench", 1, 1))
    took = time.perf_counter() - began
    sys.stdout.write(f"{base} {full} {sum(len(value) for _, value in rows) / (1 << 20)} {took}\n")


if __name__ == "__main__":
    main()
