"""Two real streams that come with a package: car loans, whose drift has a known beginning, and ACS employment.

The files are NannyML's (`make build/nannyml/.ready` fetches the package; it is not imported).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from study import peers
from study.monitoring import WINDOW

from detectors.monitor import DRIFT, MonitorState, step
from detectors.pane import Pane
from detectors.profile import Profile, build_profile
from detectors.statistics import Settings, examine
from servelens.contract.identity import ModelIdentity
from servelens.contract.schema import Feature, ModelSchema, Outputs
from servelens.contract.table import Column, Table

DATA = Path(__file__).parents[2] / "build" / "nannyml" / "nannyml" / "datasets" / "data"
CAR_LOAN = (
    "car_value", "salary_range", "debt_to_income_ratio", "loan_length", "repaid_loan_on_prev_car",
    "size_of_downpayment", "driver_tenure",
)  # fmt: skip
ONSET = 25_000  # row of the analysis file


def _model(name: str, frame: pd.DataFrame, features: tuple[str, ...]) -> ModelSchema:
    kinds = tuple(
        Feature(column, "numeric" if pd.api.types.is_numeric_dtype(frame[column]) else "categorical")
        for column in features
    )
    return ModelSchema(
        ModelIdentity("study", name, "predictor", name), kinds, Outputs("probabilities", "", ("no", "yes"))
    )


def table_of(frame: pd.DataFrame, features: tuple[str, ...], score: str) -> Table:
    """The rows of a frame: features, and the score as a prediction column."""
    columns: dict[str, Column] = {"score": frame[score].to_numpy(np.float64)}
    for name in features:
        if pd.api.types.is_numeric_dtype(frame[name]):
            columns[name] = frame[name].to_numpy(np.float64)
        else:
            texts = frame[name].astype(object)
            columns[name] = np.array(
                [None if value is None or value != value else str(value) for value in texts], object
            )
    return Table.of(columns)


@dataclass(frozen=True, slots=True)
class CarLoan:
    """Alarms before the onset, windows from the onset to the first alarm (0: in the window of the onset), its columns.

    `effects`: per window the KS distance of `car_value`; `alarms`: per window whether anything drifts.
    """

    early: int
    late: int
    columns: tuple[str, ...]
    effects: tuple[float, ...]
    alarms: tuple[bool, ...]


def car_loan() -> CarLoan:
    """The whole analysis file in windows of `WINDOW` rows."""
    reference = pd.read_csv(DATA / "synthetic_car_loan_reference.csv").assign(repaid_loan_on_prev_car=_truth)
    analysis = pd.read_csv(DATA / "synthetic_car_loan_analysis.csv").assign(repaid_loan_on_prev_car=_truth)
    profile = build_profile(
        table_of(reference, CAR_LOAN, "y_pred_proba"), _model("loans", reference, CAR_LOAN), {"source": "car loan"}
    )
    state, first, alarms, effects = MonitorState.start(profile), None, [], []
    columns: tuple[str, ...] = ()
    for number, rows in enumerate(_windows(analysis)):
        window = Pane.of(profile, table_of(rows, CAR_LOAN, "y_pred_proba"), exchanges=len(rows))
        state, result = step(state, window, profile, Settings())
        now = tuple(column.column for column in result.columns if column.state == DRIFT)
        test = result.columns[0].test
        effects.append(test.effect if test else 0.0)
        alarms.append(bool(now))
        if now and first is None:
            first, columns = number, now
    onset = ONSET // WINDOW
    late = len(alarms) if first is None else max(0, first - onset)
    return CarLoan(sum(alarms[:onset]), late, columns, tuple(effects), tuple(alarms))


def _truth(frame: pd.DataFrame) -> pd.Series:
    return frame["repaid_loan_on_prev_car"].map({True: "yes", False: "no"})


def _windows(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    for start in range(0, len(frame) - WINDOW + 1, WINDOW):
        yield frame.iloc[start : start + WINDOW]


@dataclass(frozen=True, slots=True)
class Employment:
    """One year against 2015: flagged columns by each judge, and each column's effect."""

    year: int
    rows: int
    ours: frozenset[str]
    evidently: frozenset[str]
    bonferroni: frozenset[str]
    effects: dict[str, float]


def employment() -> list[Employment]:
    """Massachusetts, 2015 as reference; half of 2015 is judged against the other half as well."""
    reference = pd.read_parquet(DATA / "employment_MA_reference.pq")
    later = pd.read_parquet(DATA / "employment_MA_analysis.pq")
    features = tuple(
        name for name in later.columns if name not in ("id", "year", "prediction", "predicted_probability")
    )
    mixed = reference.sample(frac=1, random_state=0)
    half = len(mixed) // 2
    pairs = [(mixed[:half], mixed[half:].assign(year=2015))]
    pairs += [(mixed, later[later["year"] == year]) for year in (2016, 2017, 2018)]
    return [_year(then, now, features) for then, now in pairs]


def _year(then: pd.DataFrame, now: pd.DataFrame, features: tuple[str, ...]) -> Employment:
    model, score = _model("employment", then, features), "predicted_probability"
    profile = build_profile(table_of(then, features, score), model, {"source": "ACS"})
    judged = examine(profile, Pane.of(profile, table_of(now, features, score), exchanges=len(now)), Settings())
    columns = [*features, score]
    theirs = [_named(judge(then[columns], now[columns])) for judge in (peers.evidently, peers.bonferroni)]
    ours = frozenset(test.column for test in judged if test.fired)
    effects = _effects(profile, judged)
    return Employment(int(now["year"].iloc[0]), len(now), ours, *theirs, effects)


def _effects(profile: Profile, judged: tuple) -> dict[str, float]:
    return {test.column: test.effect for test in judged if test.column in profile.position}


def _named(flags: dict[str, bool]) -> frozenset[str]:
    return frozenset("score" if name == "predicted_probability" else name for name, flag in flags.items() if flag)
