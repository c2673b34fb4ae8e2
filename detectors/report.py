"""An Evidently report of one window that shows *our* verdict: rows from Kafka, the reference drawn from the profile.

Its own process (`python -m detectors.report JOB OUT`), since Evidently takes seconds to import and hundreds of
megabytes; the one module that imports it. Evidently renders and never decides: every column's test is one that returns
what the verdict said. Called by `reporting`.
"""

import os
import sys
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from detectors import stretch
from detectors.bins import QuantileBins, Values
from detectors.columns import ColumnReference
from detectors.profile import Profile
from detectors.profile_file import unpack
from servelens.contract.errors import NotFound
from servelens.contract.table import Table
from servelens.io.kafka_settings import add_arguments, from_arguments

MOST_ROWS: Final = 2000  # of the window shown; the verdict is on all of them
METHOD: Final = "servelens"


@dataclass(frozen=True, slots=True)
class Said:
    """What the verdict says of a column: shown, not computed again."""

    effect: float
    drifted: bool
    statistic: str


def reference_rows(column: ColumnReference, rows: int, rng: np.random.Generator) -> Values:
    """(rows,) values that are spread over the bins as the reference was; within a range evenly."""
    numbers = rng.choice(column.bins.size, rows, p=column.counts / column.counts.sum())
    bins = column.bins
    if isinstance(bins, QuantileBins):
        low = bins.edges[0] if column.low is None else column.low
        high = bins.edges[-1] if column.high is None else column.high
        edges = np.clip(np.concatenate(([low], bins.edges, [high])), low, high)
        below, above = edges[np.minimum(numbers, len(edges) - 2)], edges[np.minimum(numbers + 1, len(edges) - 1)]
        values: Values = below + (above - below) * rng.random(rows)
        values[numbers == bins.size - 1] = np.nan
        return values
    return np.array([None if at == bins.size - 1 else bins.label(int(at)) for at in numbers], object)


def render(profile: Profile, table: Table, said: dict[str, Said], title: str) -> str:
    """The report's HTML: the columns of `said`, those of `table` as current data. Nothing in it loads anything."""
    os.environ["DO_NOT_TRACK"] = "1"
    import warnings

    warnings.simplefilter("ignore")  # Evidently's own use of pandas and pydantic
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.legacy.calculations.stattests.registry import StatTest, register_stattest
    from evidently.legacy.core import ColumnType
    from evidently.metrics import ValueDrift

    rng = np.random.default_rng(0)
    columns = {name: profile.columns[profile.position[name]] for name in said if name in table.columns}
    then = pd.DataFrame({name: reference_rows(column, MOST_ROWS, rng) for name, column in columns.items()})
    now = pd.DataFrame({name: _values(column, table.columns[name]) for name, column in columns.items()})
    if len(now) > MOST_ROWS:
        now = now.sample(MOST_ROWS, random_state=0)
    kinds = [ColumnType.Numerical, ColumnType.Categorical]
    test = StatTest(METHOD, "ServeLens verdict", kinds, default_threshold=1.0)
    register_stattest(test, lambda _then, current, _kind, _level: _answer(said[str(current.name)]))
    numeric = [name for name, column in columns.items() if column.kind == "numeric"]
    about = DataDefinition(
        numerical_columns=numeric, categorical_columns=[name for name in columns if name not in numeric]
    )
    data = [Dataset.from_pandas(frame, data_definition=about) for frame in (now, then)]
    shown = [ValueDrift(column=name, method=METHOD, threshold=1.0) for name in columns]
    report = Report(shown, metadata={"window": title})
    return str(report.run(*data).get_html_str(as_iframe=False))


def _answer(said: Said) -> tuple[float, bool]:
    return said.effect, said.drifted


def _values(column: ColumnReference, values: Any) -> Any:
    """Levels as the words the reference's have; numbers as they are."""
    if column.kind == "numeric" or column.bins.of_text:
        return values
    return np.array([None if value != value else f"{value:.15g}" for value in values], object)


def main(job_file: str, out: str) -> None:
    """A job as `reporting` writes it, to a page."""
    job = orjson.loads(Path(job_file).read_bytes())
    profile = unpack(Path(job["profile"]).read_bytes())
    parser = ArgumentParser()
    add_arguments(parser)
    kafka = from_arguments(parser.parse_args(job["kafka"]))
    times = stretch.seconds(job["slots"][0], job["slots"][1], job["slotseconds"])
    tables = []
    for topic, spans in job["pointers"].items():
        held = {int(partition): (first, end) for partition, (first, end) in spans.items()}
        found = stretch.read(kafka, topic, held, profile.model, times, most=10 * MOST_ROWS)
        if found.tables:
            tables.append(found.table()[0])
    if not tables:
        raise NotFound("rows: Kafka no longer holds those of this window; its retention was shorter")
    said = {name: Said(**one) for name, one in job["said"].items()}
    Path(out).write_text(render(profile, tables[0], said, job["title"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
