"""PromQL from the catalogue: a metric or label that is not there cannot be written. Text in, text out.

`scoped` selectors carry the dashboard's variables for whichever of their labels the metric has.
"""

import re
from collections.abc import Sequence
from typing import Final

from servelens.contract.metrics import CATALOGUE

INTERVAL: Final = "$__rate_interval"
SCOPE: Final = ("namespace", "inferenceservice")
SERVICE: Final = ("namespace", "inferenceservice")
MODEL: Final = ("namespace", "inferenceservice", "component", "modelname", "revision")
_SUFFIXES: Final = ("_bucket", "_sum", "_count")
_MATCHER: Final = re.compile(r'(\w+)(=~|!~|!=|=)"[^"]*"')


def labels(name: str) -> tuple[str, ...]:
    """The labels of a series, by its scraped name; KeyError if the catalogue lacks it."""
    if name in CATALOGUE:
        return CATALOGUE[name].labels
    for suffix in _SUFFIXES:
        metric = CATALOGUE.get(name.removesuffix(suffix))
        if name.endswith(suffix) and metric is not None and metric.kind == "histogram":
            return (*metric.labels, "le") if suffix == "_bucket" else metric.labels
    raise KeyError(name)


def select(name: str, *matchers: str, scoped: bool = True) -> str:
    """A selector: `name{…}`; ValueError for a matcher on a label the metric does not have."""
    has = labels(name)
    for matcher in matchers:
        found = _MATCHER.fullmatch(matcher)
        if found is None or found[1] not in has:
            raise ValueError(f"{name} has no label for {matcher}")
    scope = [f'{label}=~"${label}"' for label in SCOPE if scoped and label in has]
    inside = ",".join([*scope, *matchers])
    return f"{name}{{{inside}}}" if inside else name


def _by(name: str, by: Sequence[str]) -> str:
    missing = set(by) - set(labels(name))
    if missing:
        raise ValueError(f"{name} has no label {min(missing)}")
    return f" by ({', '.join(by)})" if by else ""


def aggregate(how: str, name: str, *matchers: str, by: Sequence[str] = (), scoped: bool = True) -> str:
    """`how by (…) (selector)`."""
    return f"{how}{_by(name, by)} ({select(name, *matchers, scoped=scoped)})"


def having(name: str, value: int, by: Sequence[str], scoped: bool = True) -> str:
    """`max by (…)` of the series that have this value: what another series of the group has does not hide it."""
    return f"max{_by(name, by)} ({select(name, scoped=scoped)} == {value})"


def first_of(name: str, values: Sequence[int], by: Sequence[str]) -> str:
    """The first of these values that any series of a group has."""
    return " or ".join(having(name, value, by) for value in values)


def rate(name: str, *matchers: str, by: Sequence[str] = (), over: str = INTERVAL, scoped: bool = True) -> str:
    """Sum of rates, a second."""
    return f"sum{_by(name, by)} (rate({select(name, *matchers, scoped=scoped)}[{over}]))"


def increase(name: str, *matchers: str, by: Sequence[str] = (), over: str = INTERVAL, scoped: bool = True) -> str:
    """Sum of increases."""
    return f"sum{_by(name, by)} (increase({select(name, *matchers, scoped=scoped)}[{over}]))"


def quantile(q: float, name: str, *, by: Sequence[str] = (), over: str = INTERVAL, scoped: bool = True) -> str:
    """A quantile of a histogram, by its catalogue name."""
    return f"histogram_quantile({q:g}, {rate(f'{name}_bucket', by=('le', *by), over=over, scoped=scoped)})"


def mean(name: str, *matchers: str, by: Sequence[str] = (), over: str = INTERVAL) -> str:
    """The mean of a histogram, by its catalogue name."""
    sums, counts = (rate(f"{name}{suffix}", *matchers, by=by, over=over) for suffix in ("_sum", "_count"))
    return f"{sums} / ({counts} > 0)"


def share(part: str, whole: str) -> str:
    """`part / whole`, no sample where there is no whole, 0 where there is no part."""
    return f"({part} or 0 * {whole}) / ({whole} > 0)"
