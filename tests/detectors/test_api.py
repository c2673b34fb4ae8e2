"""The page and the API over a real evaluation, by HTTP on port 0, and in a browser."""

import base64
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import browser
import drift_samples
import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from detectors import drawing, journal, view
from detectors.api import Api
from detectors.book import Book
from detectors.evaluation import Evaluation, Group
from detectors.pane import Pane
from detectors.reporting import Reports
from detectors.settings import DetectorSettings
from detectors.statistics import Settings
from detectors.watched import Watched
from detectors.windows import Closing, Piece
from servelens.io import http
from servelens.io.kafka_settings import KafkaSettings

TOKEN = "a-token-of-the-page"  # noqa: S105 -- opens nothing
PROFILE = drift_samples.profile_of()
START = 180_000_000  # slots of ten seconds
WINDOWS = 40


def evaluated() -> Evaluation:
    """Forty windows; two columns drift from the thirtieth on, and a second profile's model has too few rows."""
    evaluation = Evaluation(Book([PROFILE]), Group("risk", 10, Settings(), Closing()), 1)
    evaluation.journal.epoch = "e"
    rng = np.random.default_rng(1)
    for number in range(WINDOWS):
        shifts = {"n4": 0.9, "score": 0.6} if number >= 30 else {}
        table = drift_samples.draw(rng, 1000 + 40 * (number % 7), shifts)
        if number == 34:
            table.columns["n0"][:120] = np.nan
        pane = Pane.of(PROFILE, table, slot=START + 6 * number, exchanges=500, counters={"wrong_type": 3})
        feed(evaluation, number, pane)
    return evaluation


def feed(evaluation: Evaluation, number: int, pane: Pane) -> None:
    watched = evaluation.watched.setdefault(PROFILE.digest, Watched.start(PROFILE))
    watched.windows.add(Piece(0, number, pane, ("payloads", number * 100, number * 100 + 100)))
    evaluation.folds[0].at = number + 1
    cut = journal.Cut("e", number + 1, "m", PROFILE.digest, pane.slots[0], pane.slots[0] + 5, {"0": number + 1})
    evaluation.journal_entry(number, cut)
    list(evaluation.settle())


@dataclass
class Standing:
    """What the API needs of an evaluator: the evaluation and the lock around it."""

    evaluation: Evaluation | None
    lock: threading.Lock = field(default_factory=threading.Lock)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluated()


@pytest.fixture(scope="module")
def address(evaluation: Evaluation) -> Iterator[str]:
    yield from serve(evaluation, TOKEN)


def serve(evaluation: Evaluation | None, token: str, evaluates: bool = True) -> Iterator[str]:
    bound = http.bind("127.0.0.1:0")
    reports = Reports(DetectorSettings(KafkaSettings("127.0.0.1:1"), "t", "risk", None, ""))
    api = Api(Standing(evaluation) if evaluates else None, token, reports)  # type: ignore[arg-type]
    server = http.Server(http.app(CollectorRegistry(), lambda: None, api.routes()), bound)
    server.start()
    yield f"http://{http.address_of(bound)}"
    server.stop()


def get(address: str, path: str, token: str = TOKEN) -> httpx.Response:
    return httpx.get(address + path, headers={"authorization": f"Bearer {token}"}, timeout=30)


@pytest.mark.parametrize("path", ["/", "/api/v1/models", "/page/x", "/page/x/1/report", "/api/v1/models/x"])
def test_everything_but_health_and_metrics_asks_for_the_token(address: str, path: str) -> None:
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic !!"},
        {"authorization": "Digest x"},
    ):
        answer = httpx.get(address + path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic")
        assert TOKEN not in answer.text
    assert httpx.get(address + "/metrics").status_code == 200
    assert httpx.get(address + "/healthz").status_code == 200


def test_a_browser_may_show_the_token_as_a_password(address: str) -> None:
    assert httpx.get(address + "/", auth=("anyone", TOKEN)).status_code == 200
    assert httpx.get(address + "/", auth=("anyone", TOKEN + "x")).status_code == 401
    odd = base64.b64encode(b"no colon").decode()
    assert httpx.get(address + "/", headers={"authorization": f"Basic {odd}"}).status_code == 401


def test_without_a_token_page_and_api_are_shut(evaluation: Evaluation) -> None:
    for address in serve(evaluation, ""):
        answer = get(address, "/api/v1/models", "x")
        assert answer.status_code == 403
        assert "--token-file" in answer.json()["error"]


def test_a_worker_says_whom_to_ask() -> None:
    for address in serve(None, TOKEN, evaluates=False):
        answer = get(address, "/")
        assert answer.status_code == 404
        assert "ask an evaluator" in answer.json()["error"]


def test_an_evaluator_that_has_not_begun_says_to_come_back() -> None:
    for address in serve(None, TOKEN):
        answer = get(address, "/api/v1/models")
        assert answer.status_code == 503
        assert "ask again" in answer.json()["error"]


def test_models_are_listed_with_state_and_sentence(address: str) -> None:
    (one,) = get(address, "/api/v1/models").json()["models"]
    assert (one["inferenceservice"], one["state"], one["windows"]) == ("churn", "drift", WINDOWS)
    assert one["summary"].startswith("Drift in 3 of 21 columns: n4 (KS")
    assert one["summary"].endswith("n0 (not in the newest window).")
    assert one["profile"] == PROFILE.digest


def test_a_model_has_its_newest_verdict_and_its_timeline(address: str) -> None:
    (one,) = get(address, "/api/v1/models").json()["models"]
    model = get(address, f"/api/v1/models/{one['key']}").json()
    assert len(model["timeline"]) == WINDOWS
    assert [len(seen["states"]) for seen in model["timeline"]] == [22] * WINDOWS
    at = model["columns"].index("n4")
    states = [seen["states"][at] for seen in model["timeline"]]
    assert states[:30] == ["ok"] * 30
    assert states[-1] == "drift"
    assert [seen["shown"] for seen in model["timeline"]] == [False] * (WINDOWS - 16) + [True] * 16
    assert model["latest"]["id"] == model["timeline"][-1]["id"]


def test_a_window_has_its_tests_and_histograms_that_sum_to_one(address: str) -> None:
    (one,) = get(address, "/api/v1/models").json()["models"]
    last = get(address, f"/api/v1/models/{one['key']}").json()["timeline"][-1]["last"]
    window = get(address, f"/api/v1/models/{one['key']}/windows/{last}").json()
    columns = {column["column"]: column for column in window["columns"]}
    assert columns["n4"]["fired"]
    assert columns["(requests)"]["bars"] == []
    assert window["counters"]["wrong_type"] == 3
    for column in columns.values():
        if column["bars"]:
            assert sum(bar["now"] for bar in column["bars"]) == pytest.approx(1.0)
            assert sum(bar["then"] for bar in column["bars"]) == pytest.approx(1.0)
    assert columns["n4"]["bars"][0]["part"].startswith("below")
    assert [bar["part"] for bar in columns["c1"]["bars"]] == ["level 0", "level 1", "level 2", "unseen", "null"]


def test_what_is_not_kept_is_not_found(address: str) -> None:
    (one,) = get(address, "/api/v1/models").json()["models"]
    first = get(address, f"/api/v1/models/{one['key']}").json()["timeline"][0]["last"]
    for path in (f"/api/v1/models/{one['key']}/windows/{first}", "/api/v1/models/none", f"/page/{one['key']}/7"):
        answer = get(address, path)
        assert answer.status_code == 404
        assert "error" in answer.json()


@pytest.mark.parametrize("dark", [False, True])
def test_the_pages_open_in_a_browser_light_and_dark(address: str, tmp_path: Path, dark: bool) -> None:
    (one,) = get(address, "/api/v1/models").json()["models"]
    last = get(address, f"/api/v1/models/{one['key']}").json()["timeline"][-6]["last"]
    schemes = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else []
    paths = {"models": "/", "model": f"/page/{one['key']}", "window": f"/page/{one['key']}/{last}"}
    for name, path in paths.items():
        answer = get(address, path)
        assert answer.status_code == 200
        assert "script" not in answer.headers["content-security-policy"]
        for outside in ("<script", "http://", "https://", "<img", "<link"):
            assert outside not in answer.text
        page, shot = tmp_path / f"{name}.html", tmp_path / f"{name}-{'dark' if dark else 'light'}.png"
        page.write_text(answer.text)
        assert len(browser.screenshot(page, shot, *schemes)) > 10_000
    seen = browser.dom(tmp_path / "model.html")
    assert "Every column, window by window" in seen
    assert seen.count("<rect") > 60
    assert "churn" in browser.dom(tmp_path / "models.html")


def test_texts_of_a_model_are_escaped_on_the_page(evaluation: Evaluation) -> None:
    (one,) = view.models(evaluation)
    evil = {**one, "summary": "<script>alert(1)</script>", "segment": "<b>"}
    page = drawing.models({"group": "g<i>", "target": 1000, "models": [evil]})
    assert "<script>" not in page
    assert "g<i>" not in page
