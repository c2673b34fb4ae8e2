"""The page: the view's values laid out as SVG coordinates and put into the templates of `page/`. No script, no CDN.

Values in, HTML out; the templates escape every text they are given. Called by `api`.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Any, Final

import jinja2

from detectors.monitor import STATES

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
WIDTH: Final = 1040  # of the timeline, in SVG units; LEFT of it the names, above TOP the bars, a ROW a column
LEFT: Final = 190
TOP: Final = 56
ROW: Final = 18
PLOT: Final = 88  # height of a histogram
ACROSS: Final = 300  # its width


def models(found: Mapping[str, Any]) -> str:
    """The page of all models."""
    return _template("models.html").render(**found)


def model(found: Mapping[str, Any]) -> str:
    """The page of one model."""
    return _template("model.html").render(model=found, plot=_timeline(found), states=STATES)


def window(found: Mapping[str, Any]) -> str:
    """The page of one window."""
    plots = {one["column"]: _histogram(one["bars"]) for one in found["columns"] if one["bars"]}
    return _template("window.html").render(window=found, plots=plots)


@cache
def _templates() -> jinja2.Environment:
    loader = jinja2.PackageLoader("detectors", "page")
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)


def _template(name: str) -> jinja2.Template:
    return _templates().get_template(name)


def _timeline(found: Mapping[str, Any]) -> dict[str, Any]:
    """Bars of rows with links above, below them one row a column, runs of equal state as one rectangle."""
    seen = found["timeline"]
    step = (WIDTH - LEFT) / max(len(seen), 1)
    most = max((one["rows"] for one in seen), default=0) or 1
    rows = [
        {
            "name": name,
            "y": TOP + at * ROW,
            "runs": _runs([one["states"][at] for one in seen], [one["to"] for one in seen], step),
        }
        for at, name in enumerate(found["columns"])
    ]
    return {
        "width": WIDTH,
        "height": TOP + len(rows) * ROW + 24,
        "left": LEFT,
        "top": TOP,
        "bars": [_bar(one, at, step, most) for at, one in enumerate(seen)],
        "rows": rows,
        "from": seen[0]["from"].replace("T", " ") if seen else "",
        "to": seen[-1]["to"].replace("T", " ") if seen else "",
    }


def _bar(one: Mapping[str, Any], at: int, step: float, most: int) -> dict[str, Any]:
    height = round((TOP - 12) * one["rows"] / most, 1)
    return {
        "x": round(LEFT + at * step, 2),
        "y": round(TOP - 6 - height, 1),
        "width": round(max(step - 1, 0.8), 2),
        "height": height,
        "link": one["last"] if one["shown"] else None,
        "words": f"{one['rows']} rows until {one['to']}: {one['state']}",
    }


def _runs(states: Sequence[str], until: Sequence[str], step: float) -> list[dict[str, Any]]:
    runs, at = [], 0
    for state, same in groupby(states):
        count = len(list(same))
        words = f"{state}, {count} windows until {until[at + count - 1]}"
        runs.append({"state": state, "x": round(LEFT + at * step, 2), "width": round(count * step, 2), "words": words})
        at += count
    return runs


def _histogram(bars: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    most = max(max(bar["then"], bar["now"]) for bar in bars) or 1.0
    step = ACROSS / len(bars)
    return [
        {
            "x": round(at * step + 1, 2),
            "width": round(step - 2, 2),
            "now_y": round(PLOT - PLOT * bar["now"] / most, 2),
            "now_height": round(PLOT * bar["now"] / most, 2),
            "then_y": round(PLOT - PLOT * bar["then"] / most, 2),
            "words": f"{bar['part']}: {100 * bar['then']:.1f} % then, {100 * bar['now']:.1f} % now",
        }
        for at, bar in enumerate(bars)
    ]
