"""The explanation as a page: self-contained, escaped, and drawn by a real browser without a network."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import dom, screenshot
from explainers_parts import MODEL, ROW, ArtifactOf, House, house

from explainers import page
from explainers.explanation import Attributions, Cost, Explanation, Rule
from servelens.contract.schema import ModelSchema

HTML = {"accept": "text/html"}


class Tags(HTMLParser):
    """Every tag and its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def explanation(features: int = 6, name: str = "f", outputs: int = 1, complete: bool = True) -> Explanation:
    values = np.random.default_rng(3).normal(size=(outputs, features))
    return Explanation(
        method="permutation_shap",
        features=[f"{name}{at}" for at in range(features)],
        values=[(1.5, None, "a", 3)[at % 4] for at in range(features)],
        outputs=[f"out{at}" for at in range(outputs)],
        prediction=values.sum(axis=1),
        found=Attributions(np.zeros(outputs), values, np.abs(values) / 5, 100, 1),
        cost=Cost(10, 9, 1, 0.5),
        seed=7,
        background="0" * 64,
        complete=complete,
    )


def test_html_is_what_a_browser_gets(home: House) -> None:
    answer = home.client.post("/v1/models/m:explain", json={"instances": [ROW, ROW]}, headers=HTML)
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.text.count("<svg") == 2
    for word in ("age", "income", "visits", "member", "city", "Graz"):
        assert word in answer.text


def test_the_page_needs_nothing_from_elsewhere() -> None:
    tags = Tags(page.render("m", [explanation()])).found
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in tags}
    values = [value or "" for _, attributes in tags for value in attributes.values()]
    assert not [value for value in values if "://" in value or value.startswith("//")]


def test_texts_cannot_break_out() -> None:
    text = page.render("<script>alert(1)</script>", [explanation(name="<b onload=x>&")])
    assert "<script>" not in text
    assert "<b onload" not in text
    assert "&lt;b onload=x&gt;&amp;0" in text


def test_bars_lead_from_the_mean_to_the_prediction_with_whiskers_of_two_errors() -> None:
    one = explanation()
    (fall,) = page._waterfalls(one, one.found)  # type: ignore[arg-type]
    found = one.found
    assert isinstance(found, Attributions)
    order = np.argsort(-np.abs(found.values[0]))
    assert [bar.name for bar in fall.bars] == [f"f{at}" for at in order]
    last = fall.bars[-1]
    assert fall.prediction_at in (last.start, last.stop)
    scale = (fall.bars[0].stop - fall.bars[0].start) / abs(found.values[0][order[0]])
    for bar, at in zip(fall.bars, order, strict=True):
        assert bar.high - bar.low == pytest.approx(4 * found.errors[0][at] * scale, abs=0.05)
        assert min(bar.low, bar.start) >= 0
        assert max(bar.high, bar.stop) <= page.WIDTH
    ends = [fall.base_at]
    for bar in fall.bars:
        assert ends[-1] == pytest.approx(bar.start if bar.up else bar.stop, abs=0.02)
        ends.append(bar.stop if bar.up else bar.start)


def test_many_features_share_the_last_bar_and_add_up() -> None:
    one = explanation(features=40)
    (fall,) = page._waterfalls(one, one.found)  # type: ignore[arg-type]
    assert len(fall.bars) == page.SHOWN + 1
    assert fall.bars[-1].name == "25 more"
    assert fall.prediction_at in (
        pytest.approx(fall.bars[-1].start, abs=0.02),
        pytest.approx(fall.bars[-1].stop, abs=0.02),
    )


def test_what_is_not_complete_says_so() -> None:
    assert "Not complete" in page.render("m", [explanation(complete=False)])
    assert "Not complete" not in page.render("m", [explanation()])


def test_a_rule_reads_as_one() -> None:
    rule = Rule("late", ("dep_delay > 12.00", "carrier = UA"), (0, 4), 0.97, 0.006, 1000, 0.123, True)
    one = explanation()
    text = page.render("m", [Explanation(**{slot: getattr(one, slot) for slot in one.__slots__} | {"found": rule})])
    assert "stays <b>late</b> while" in text
    assert "dep_delay &gt; 12.00" in text
    assert "0.970 ± 0.012" in text
    assert "12.3 %" in text


@pytest.mark.parametrize("features", [1, 2])
def test_few_features_and_no_effect_are_drawn(features: int) -> None:
    one = explanation(features)
    flat = Attributions(np.ones(1), np.zeros((1, features)), np.zeros((1, features)), 2, 1, True)
    text = page.render("m", [Explanation(**{slot: getattr(one, slot) for slot in one.__slots__} | {"found": flat})])
    assert "NaN" not in text.replace("nan", "NaN")


def test_chromium_draws_it(artifact: ArtifactOf, schema: ModelSchema, tmp_path: Path) -> None:
    with house(artifact(model=MODEL), schema) as home:
        answer = home.client.post("/v1/models/m:explain", json={"instances": [ROW]}, headers=HTML)
    path = tmp_path / "page.html"
    path.write_text(answer.text)
    seen = dom(path)
    assert len(re.findall(r'<rect class="(?:up|down)"', seen)) == 5
    assert "prediction 0." in seen
    light = screenshot(path, tmp_path / "light.png")
    dark = screenshot(path, tmp_path / "dark.png", "--blink-settings=preferredColorScheme=0")
    assert len(light) > 15_000
    assert light != dark
