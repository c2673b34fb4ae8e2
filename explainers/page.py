"""An explanation as one self-contained page: a waterfall for each output, its error as whiskers. No script, no CDN.

Values in, HTML out; `page.html` is the template, which escapes every text it is given. Called by `routes` and the
demo.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import jinja2
import numpy as np

from explainers.explanation import Attributions, Explanation, Rule
from servelens.contract.jsontext import Json

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
SHOWN: Final = 15  # features with a bar of their own
WIDTH: Final = 520  # of the plot, in SVG units
BAR: Final = 26  # height of a row


@dataclass(frozen=True, slots=True)
class Bar:
    """One feature's step from `start` to `stop`, whiskers from `low` to `high`; all in SVG units."""

    name: str
    value: str
    words: str
    start: float
    stop: float
    low: float
    high: float
    top: float
    up: bool


@dataclass(frozen=True, slots=True)
class Waterfall:
    """The plot of one output; `ticks` are (position, label)."""

    output: str
    base: str
    prediction: str
    base_at: float
    prediction_at: float
    height: float
    bars: Sequence[Bar]
    ticks: Sequence[tuple[float, str]]


def render(model: str, explanations: Sequence[Explanation]) -> str:
    """The page of one request's explanations."""
    shown = [_section(number, one) for number, one in enumerate(explanations, 1)]
    return _template().render(model=model, explanations=shown, width=WIDTH, bar=BAR)


@cache
def _template() -> jinja2.Template:
    loader = jinja2.PackageLoader("explainers", "")
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template(
        "page.html"
    )


def _section(number: int, explanation: Explanation) -> dict[str, Any]:
    found = explanation.found
    return {
        "number": number,
        "one": explanation,
        "row": [(name, _text(value)) for name, value in zip(explanation.features, explanation.values, strict=True)],
        "waterfalls": _waterfalls(explanation, found) if isinstance(found, Attributions) else [],
        "rule": found if isinstance(found, Rule) else None,
        "found": found,
    }


def _waterfalls(explanation: Explanation, found: Attributions) -> list[Waterfall]:
    return [_waterfall(explanation, found, at) for at in range(len(explanation.outputs))]


def _waterfall(explanation: Explanation, found: Attributions, at: int) -> Waterfall:
    steps = _steps(explanation, found, at)
    ends = np.concatenate([[found.base[at]], found.base[at] + np.cumsum([step[2] for step in steps])])
    errors = np.array([step[3] for step in steps])
    low = min(ends.min(), (ends[1:] - 2 * errors).min(initial=np.inf))
    high = max(ends.max(), (ends[1:] + 2 * errors).max(initial=-np.inf))
    span = (high - low) or 1.0
    low, span = low - 0.04 * span, 1.08 * span

    def place(value: float) -> float:
        return round(float(WIDTH * (value - low) / span), 2)

    bars = [
        Bar(
            name=name,
            value=value,
            words=f"{change:+.4g} ± {2 * error:.2g}".replace("-", "−"),
            start=place(min(ends[number], ends[number + 1])),
            stop=place(max(ends[number], ends[number + 1])),
            low=place(ends[number + 1] - 2 * error),
            high=place(ends[number + 1] + 2 * error),
            top=number * BAR,
            up=change >= 0,
        )
        for number, (name, value, change, error) in enumerate(steps)
    ]
    return Waterfall(
        output=explanation.outputs[at],
        base=f"{found.base[at]:.4g}",
        prediction=f"{explanation.prediction[at]:.4g}",
        base_at=place(found.base[at]),
        prediction_at=place(explanation.prediction[at]),
        height=len(bars) * BAR,
        bars=bars,
        ticks=[(place(tick), f"{tick:.4g}") for tick in _ticks(low, low + span)],
    )


def _steps(explanation: Explanation, found: Attributions, at: int) -> list[tuple[str, str, float, float]]:
    """(name, value, attribution, standard error), the largest first; what is left over in one step at the end."""
    order = np.argsort(-np.abs(found.values[at]), kind="stable")
    own, rest = (order, order[:0]) if len(order) <= SHOWN + 1 else (order[:SHOWN], order[SHOWN:])
    steps = [
        (explanation.features[i], _text(explanation.values[i]), float(found.values[at, i]), float(found.errors[at, i]))
        for i in own
    ]
    if len(rest):
        # Errors of features are not independent; their sum bounds that of the rest.
        steps.append(
            (f"{len(rest)} more", "", float(found.values[at, rest].sum()), float(found.errors[at, rest].sum()))
        )
    return steps


def _ticks(low: float, high: float) -> list[float]:
    """Some four round numbers between low and high."""
    raw = (high - low) / 4
    if not raw > 0 or not np.isfinite(raw) or abs(low) > 1e12 * raw:  # flat, or beyond what a double can count
        return []
    power = 10.0 ** np.floor(np.log10(raw))
    step = float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw))
    return [round(number * step, 12) for number in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]


def _text(value: Json) -> str:
    if value is None:
        return "null"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
