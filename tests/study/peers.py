"""What others say of the same rows: Evidently's defaults, column by column, and scipy's tests with Bonferroni."""

import os
import warnings

import numpy as np
import pandas as pd
from scipy import stats

os.environ["DO_NOT_TRACK"] = "1"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its import warns of pandas' and pydantic's futures
    from evidently.legacy.calculations.stattests.registry import get_stattest
    from evidently.legacy.core import ColumnType

Flags = dict[str, bool]


def evidently(reference: pd.DataFrame, current: pd.DataFrame) -> Flags:
    """Which columns its defaults call drifted; the method is chosen by the size of the reference."""
    flags = {}
    for name in reference.columns:
        numeric = pd.api.types.is_numeric_dtype(reference[name])
        kind = ColumnType.Numerical if numeric else ColumnType.Categorical
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            test = get_stattest(reference[name], current[name], kind, None)
            flags[name] = bool(test(reference[name], current[name], kind, None).drifted)
    return flags


def bonferroni(reference: pd.DataFrame, current: pd.DataFrame, alpha: float = 0.05) -> Flags:
    """Kolmogorov-Smirnov and chi-square, both of two samples, at alpha over the number of columns."""
    level = alpha / len(reference.columns)
    return {name: _p(reference[name], current[name]) <= level for name in reference.columns}


def _p(reference: pd.Series, current: pd.Series) -> float:
    if pd.api.types.is_numeric_dtype(reference):
        return float(stats.ks_2samp(reference.dropna(), current.dropna(), method="asymp").pvalue)
    both = pd.DataFrame({"then": reference.value_counts(), "now": current.value_counts()}).fillna(0).to_numpy()
    return float(stats.chi2_contingency(both[both.sum(1) > 0])[1]) if np.count_nonzero(both.sum(1)) > 1 else 1.0
