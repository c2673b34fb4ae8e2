"""A real Prometheus scrapes the demo's processes: every panel of every dashboard has data, and the right numbers."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from prometheus_server import Prometheus, scraping
from promql_reading import filled
from tap_parts import until
from whole_logger import WholeLogger, whole_logger

from dashboards.build import BOARDS, files
from detectors.build import build
from servelens.demo import explained, truth
from servelens.demo.flights import load, model_yaml
from servelens.demo.model import LateArrival
from servelens.demo.stack import Stack
from servelens.demo.traffic import Ledger, drive

ROWS = 8_000  # of each season: enough for windows before and after the shift


@contextmanager
def posts(url: str) -> Iterator[threading.Event]:
    """Events, labels and what is neither, some a second, until the event is set."""
    stop = threading.Event()
    event = {f"ce-{name}": text for name, text in (("specversion", "1.0"), ("id", "e"), ("source", "s"))}
    event |= {"ce-time": "2026-08-21T00:23:26Z", "ce-type": "org.kubeflow.serving.inference.request"}
    label = {"namespace": "n", "inferenceservice": "i", "requestid": "e", "value": 1}

    def post() -> None:
        with httpx.Client(base_url=url) as client:
            while not stop.wait(0.2):
                client.post("/", content=b"{}", headers=event)
                client.post("/", content=b"{}")
                client.post("/labels", json=label)
                client.post("/labels", json=[])

    thread = threading.Thread(target=post)
    thread.start()
    yield stop
    stop.set()
    thread.join(10)


class Shown:
    """The stack after its traffic, and the Prometheus that watched it."""

    def __init__(
        self, stack: Stack, prometheus: Prometheus, ledger: Ledger, bridge: WholeLogger, enough: threading.Event
    ) -> None:
        self.stack, self.prometheus, self.ledger, self.bridge, self.enough = stack, prometheus, ledger, bridge, enough


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("dashboards")
    stack, seasons = Stack(folder / "out", "dash"), load()
    model = LateArrival(seasons.train)
    with ExitStack() as opened, stack.supervised():
        stack.start_broker()
        stack.start_serving()
        pyarrow.csv.write_csv(
            pa.table(dict(truth.table(seasons.reference, model).columns)), stack.out / "reference.csv"
        )
        (stack.out / "model.yaml").write_text(model_yaml())
        build(stack.out / "reference.csv", stack.out / "model.yaml", stack.out / "profiles" / "flights.profile")
        background = explained.write_artifact(stack.out / "explainer", seasons.reference)
        stack.start_detectors(workers=1, evaluators=1)
        stack.start_explainer()
        stack.wait_ready()
        flags = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--spool", str(folder / "bridge")]
        flags += ["--kafka", stack.settings.bootstrap, "--topic-prefix", "dash"]
        bridge = opened.enter_context(whole_logger(folder, *flags, service="bridge"))
        enough = opened.enter_context(posts(f"http://{bridge.addresses['listening']}"))
        targets = {"logger": stack.admin, "bridge": bridge.addresses["admin"], "explainer": stack.explainer}
        targets |= stack.detectors
        with scraping(folder / "prometheus", targets, files()["prometheus/servelens.rules.yaml"]) as prometheus:
            ledger = Ledger()
            flights = seasons.summer.take(np.arange(4))
            for season in (seasons.winter, seasons.summer):
                asyncio.run(drive(stack.tap, season, ledger, ROWS))
                explained.explain(stack.explainer, flights, background, model, folder / "page.html")
            stack.wait("the spool", lambda: stack.spool()["waiting"] == 0)
            asyncio.run(drive(stack.tap, seasons.summer, ledger, 3_200))  # rates need traffic now
            explained.explain(
                stack.explainer, seasons.summer.take(np.arange(5, 8)), background, model, folder / "p.html"
            )
            time.sleep(4)
            yield Shown(stack, prometheus, ledger, bridge, enough)


def queries() -> list[tuple[str, str, str]]:
    return [
        (name, panel["title"], target["expr"])
        for name in BOARDS
        for panel in json.loads(files()[f"grafana/servelens-{name}.json"])["panels"]
        for target in panel.get("targets", [])
    ]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_panel_has_data(shown: Shown) -> None:
    """As Grafana asks, with all variables at All; NaN is no data."""
    empty = []
    for board, title, expression in queries():
        found = [float(one["value"][1]) for one in shown.prometheus.query(filled(expression))]
        if not [value for value in found if value == value]:
            empty.append(f"{board} / {title}: {expression}")
    assert empty == []
    assert len(queries()) > 60


def test_targets_are_up_and_no_rule_has_an_error(shown: Shown) -> None:
    assert {one["health"] for one in shown.prometheus.get("/api/v1/targets")["activeTargets"]} == {"up"}
    (group,) = shown.prometheus.get("/api/v1/rules")["groups"]
    assert [rule for rule in group["rules"] if rule["health"] != "ok" or rule.get("lastError")] == []


def test_numbers_are_what_other_witnesses_say(shown: Shown) -> None:
    """One number of each dashboard, worked out without Prometheus."""
    prometheus, account = shown.prometheus, shown.stack.spool()
    expressions = {(board, title): expression for board, title, expression in queries()}

    def now(board: str, title: str) -> float:
        return prometheus.value(filled(expressions[board, title]))

    assert now("logger", "In Kafka") == account["shipped"] == shown.ledger.sent
    shown.enough.set()
    until(lambda: now("logger", "Through the bridge") == shown.bridge.account()["shipped"] > 100, "scraped", 30)
    assert now("logger", "Left out") == account["reasons"]["synthetic"]
    assert now("logger", "Unexplained") == 0
    assert now("overview", "Success") == 1
    assert now("drift", "Columns watched") == 7
    done = prometheus.value("sum(servelens_explanations_total)")
    assert done == 2 * (4 + 1 + 4) + (3 + 1 + 3)  # a V1 request a flight, the page, and V2 with all of them
    assert now("explainer", "Complete") == 1


def test_the_drift_alert_fires_on_the_shift_and_nothing_else_does(shown: Shown) -> None:
    deadline, firing = time.monotonic() + 30, set[tuple[str, str]]()
    while ("ServeLensDrift", "dep_delay") not in firing:  # the last windows close a few seconds after their rows
        assert time.monotonic() < deadline, shown.prometheus.query("servelens_drift_state")
        time.sleep(0.5)
        firing = {
            (one["labels"]["alertname"], one["labels"].get("column", ""))
            for one in shown.prometheus.get("/api/v1/alerts")["alerts"]
            if one["state"] == "firing"
        }
    assert {name for name, _ in firing} == {"ServeLensDrift"}


def test_variables_find_the_service(shown: Shown) -> None:
    for name in BOARDS:
        for variable in json.loads(files()[f"grafana/servelens-{name}.json"])["templating"]["list"][1:]:
            series, _, label = (
                variable["query"]["query"].removeprefix("label_values(").removesuffix(")").rpartition(", ")
            )
            answer: Any = httpx.get(
                f"http://{shown.prometheus.address}/api/v1/label/{label}/values",
                params={"match[]": filled(series)},
                timeout=10,
            ).json()
            assert answer["data"] == [{"namespace": "demo", "inferenceservice": "flights"}[label]]
