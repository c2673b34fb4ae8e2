"""Evidently on the same rows: its drift preset, and its stat tests without a report."""

import os
import warnings

import pandas as pd

from servelens.contract.table import Table

os.environ["DO_NOT_TRACK"] = "1"
warnings.simplefilter("ignore")  # its import and its runs warn of pandas' and pydantic's futures
from evidently import DataDefinition, Dataset, Report  # noqa: E402 -- after the filter
from evidently.presets import DataDriftPreset  # noqa: E402
from study import peers  # noqa: E402


def frames(table: Table) -> pd.DataFrame:
    return pd.DataFrame(dict(table.columns))


def tests(reference: pd.DataFrame, current: pd.DataFrame) -> None:
    peers.evidently(reference, current)


def preset(reference: pd.DataFrame, current: pd.DataFrame) -> None:
    numeric = [name for name in reference.columns if pd.api.types.is_numeric_dtype(reference[name])]
    about = DataDefinition(
        numerical_columns=numeric, categorical_columns=[name for name in reference.columns if name not in numeric]
    )
    data = [Dataset.from_pandas(frame, data_definition=about) for frame in (current, reference)]
    Report([DataDriftPreset()]).run(*data)
