"""Flights explained by curl, through explainer, tap and predictor: within their stated errors, and no traffic."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from browser import dom, screenshot

from servelens.contract import oip, records
from servelens.contract.events import Exchange
from servelens.contract.topics import DEFAULT_PARTITIONS
from servelens.demo import explained
from servelens.demo.flights import FEATURES, Flights, Seasons, load
from servelens.demo.model import LateArrival
from servelens.demo.stack import Stack
from servelens.io.kafka import read_all

DEADLINE = 10  # seconds, the default


class Shop:
    """The demo's serving half with its explainer, and what the truth is made of."""

    def __init__(self, stack: Stack, seasons: Seasons) -> None:
        self.stack, self.seasons, self.model = stack, seasons, LateArrival(seasons.train)
        self.background = explained.write_artifact(stack.out / "explainer", seasons.reference)

    def curl(self, path: str, body: bytes, *more: str) -> str:
        curl = shutil.which("curl")
        if curl is None:
            pytest.skip("needs curl")
        url = f"http://{self.stack.explainer}{path}"
        command = [curl, "-sS", "--fail-with-body", "-m", str(DEADLINE), url, "--data-binary", "@-", *more]
        return subprocess.run(command, input=body, check=True, capture_output=True).stdout.decode()

    def truth(self, flights: Flights) -> np.ndarray:
        rows = [explained.exact(self.model, flights, at, self.background) for at in range(len(flights))]
        return np.array([[row[name] for name in FEATURES] for row in rows])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    stack = Stack(tmp_path_factory.mktemp("explained"), "explained")
    with stack.supervised():
        stack.start_broker()
        stack.start_serving()
        made = Shop(stack, load())
        stack.start_explainer()
        stack.wait_ready()
        yield made


def test_v1_by_curl_is_within_two_stated_errors_of_the_exact_values(shop: Shop) -> None:
    flights = shop.seasons.summer.take(np.arange(100, 116))
    found = orjson.loads(shop.curl("/v1/models/flights:explain", explained.request_v1(flights)))["explanations"]
    said = np.array([[one["attribution"] for one in item["attributions"]["score"]] for item in found])
    errors = np.array([[one["standard_error"] for one in item["attributions"]["score"]] for item in found])
    truth = shop.truth(flights)
    assert said.shape == truth.shape == (16, 6)
    assert (np.abs(said - truth) <= 2 * errors + 1e-6).mean() >= 0.9  # answers travel as float32
    assert np.abs(said - truth).sum() / np.abs(truth).sum() < 0.05
    assert errors.max() < 0.05
    assert all(item["complete"] and not item["error"]["exact"] for item in found)


def test_v2_by_curl_is_the_same_in_tensors(shop: Shop) -> None:
    flights = shop.seasons.summer.take(np.arange(100, 103))
    answer = shop.curl("/v2/models/flights/explain", explained.request_v2(flights))
    tensors = {one.name: one.data for one in oip.decode_response(answer.encode()).outputs}
    truth = shop.truth(flights)
    assert (np.abs(tensors["attributions"][:, 0] - truth) <= 2 * tensors["standard_errors"][:, 0] + 1e-6).mean() >= 0.9
    assert [name.decode() for name in tensors["feature_names"]] == list(FEATURES)


def test_the_page_opens_in_a_browser(shop: Shop, tmp_path: Path) -> None:
    flights = shop.seasons.summer.take(np.arange(100, 101))
    page = tmp_path / "explanation.html"
    page.write_text(shop.curl("/v1/models/flights:explain", explained.request_v1(flights), "-H", "accept: text/html"))
    seen = dom(page)
    assert len(re.findall(r'<rect class="(?:up|down)"', seen)) == len(FEATURES)
    assert len(re.findall(r'class="whisker"', seen)) == len(FEATURES)
    assert len(screenshot(page, tmp_path / "explanation.png")) > 15_000


def test_a_bad_flight_is_named(shop: Shop) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        shop.curl("/v1/models/flights:explain", b'{"instances": [[1, 2]]}')
    assert "the model has 6 features" in orjson.loads(caught.value.stdout)["error"]


def test_none_of_it_is_in_the_payload_log(shop: Shop) -> None:
    stack = shop.stack
    stack.wait("the spool", lambda: stack.spool()["waiting"] == 0)
    account: dict[str, Any] = stack.spool()
    assert account["adds_up"]
    assert account["reasons"]["synthetic"] >= 4
    logged = [
        event
        for partition in range(DEFAULT_PARTITIONS)
        for record in read_all(stack.settings, stack.topics.payloads, partition)
        if isinstance(event := records.decode(record.headers, record.value), Exchange)
    ]
    assert logged == []
