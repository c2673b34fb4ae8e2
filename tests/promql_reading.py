"""What a PromQL expression names: series, and the labels they are matched by; after Grafana's variables."""

import re
from collections.abc import Iterator
from typing import Any

import promql_parser

_INTERVALS = {"$__rate_interval": "1m", "$__interval": "15s", "$__range": "1h"}
_KIDS = {
    "AggregateExpr": ("expr", "param"),
    "BinaryExpr": ("lhs", "rhs"),
    "ParenExpr": ("expr",),
    "SubqueryExpr": ("expr",),
    "UnaryExpr": ("expr",),
    "Call": ("args",),
    "MatrixSelector": ("vector_selector",),
}


def filled(expression: str, **variables: str) -> str:
    """The expression as Prometheus gets it: intervals, and variables, `.+` where none is given."""
    for name, value in _INTERVALS.items():
        expression = expression.replace(name, value)
    return re.sub(r"\$\{?(\w+)\}?", lambda found: variables.get(found[1], ".+"), expression)


def nodes(expression: str) -> Iterator[Any]:
    """Every node of the parsed expression; ValueError where it is none."""
    waiting = [promql_parser.parse(filled(expression))]
    while waiting:
        node = waiting.pop()
        yield node
        for name in _KIDS.get(type(node).__name__, ()):
            child = getattr(node, name, None)
            if child is not None:
                waiting += list(child) if isinstance(child, list | tuple) else [child]


def selectors(expression: str) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """(series, [(label, operator, value)]) of every selector."""
    return [
        (node.name, [(one.name, str(one.op).rpartition(".")[2], one.value) for one in node.matchers.matchers])
        for node in nodes(expression)
        if type(node).__name__ == "VectorSelector"
    ]


def within_rate(expression: str) -> set[str]:
    """Names of the series that stand inside rate, irate or increase."""
    return {
        node.vector_selector.name
        for call in nodes(expression)
        if type(call).__name__ == "Call" and call.func.name in ("rate", "irate", "increase")
        for node in call.args
        if type(node).__name__ == "MatrixSelector"
    }
