"""Other people's clients through the tap: the same answer as directly, and each exchange in Kafka."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http as triton

from servelens.contract import records
from servelens.contract.events import Exchange
from servelens.contract.topics import DEFAULT_PARTITIONS
from servelens.demo.flights import CATEGORICAL, NUMERIC, TENSOR, Seasons, load
from servelens.demo.stack import Stack
from servelens.io.kafka import read_all

ROWS = 5


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    running = Stack(tmp_path_factory.mktemp("clients"), "clients")
    with running.supervised():
        running.start_broker()
        running.start_serving()
        running.wait_ready()
        yield running


@pytest.fixture(scope="module")
def seasons() -> Seasons:
    return load()


def inputs(seasons: Seasons, binary: bool) -> list[triton.InferInput]:
    flights = seasons.winter.take(np.arange(ROWS))
    made = []
    for name in (*NUMERIC, *CATEGORICAL):
        values = flights.columns[name]
        tensor = triton.InferInput(name, [ROWS], "FP64" if name in NUMERIC else "BYTES")
        tensor.set_data_from_numpy(values.astype(np.float64) if name in NUMERIC else values, binary_data=binary)
        made.append(tensor)
    return made


def ask(address: str, seasons: Seasons, binary: bool) -> np.ndarray:
    client = triton.InferenceServerClient(address)
    outputs = [triton.InferRequestedOutput(TENSOR, binary_data=binary)]
    answer: np.ndarray = client.infer("flights", inputs(seasons, binary), outputs=outputs).as_numpy(TENSOR)
    client.close()
    return answer


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_tritonclient_gets_the_same_answer_through_the_tap(stack: Stack, seasons: Seasons, binary: bool) -> None:
    direct, tapped = ask(stack.predictor, seasons, binary), ask(stack.tap, seasons, binary)
    assert direct.shape == (ROWS, 2)
    assert np.array_equal(direct, tapped)
    assert np.allclose(direct.sum(axis=1), 1, atol=1e-6)


def test_a_bad_request_is_the_predictors_answer_and_is_logged(stack: Stack) -> None:
    answer = httpx.post(f"http://{stack.tap}/v1/models/flights:predict", content=b'{"instances": [[1]]}')
    assert answer.status_code == 400
    assert "error" in answer.json()


def test_every_exchange_reaches_kafka_with_its_bodies(stack: Stack, seasons: Seasons) -> None:
    marker = "marked-1"
    body = b'{"instances": [[5.0, 100.0, 700.0, 9.0, "UA", "EWR"]]}'
    headers = {"content-type": "application/json", "x-request-id": marker}
    answer = httpx.post(f"http://{stack.tap}/v1/models/flights:predict?x=secret", content=body, headers=headers)
    assert answer.status_code == 200
    stack.wait("the spool", lambda: stack.spool()["waiting"] == 0)
    found = [
        event
        for partition in range(DEFAULT_PARTITIONS)
        for record in read_all(stack.settings, stack.topics.payloads, partition)
        if isinstance(event := records.decode(record.headers, record.value), Exchange) and event.requestid == marker
    ]
    (event,) = found
    assert event.path == "/v1/models/flights:predict"
    assert event.identity.modelname == "flights"
    assert event.request is not None
    assert event.request.body == body
    assert event.response is not None
    assert event.response.body == answer.content
    account = stack.spool()
    assert account["adds_up"]
    assert account["offered"] >= 1


def test_the_logger_exposes_what_it_saw(stack: Stack) -> None:
    text = httpx.get(f"http://{stack.admin}/metrics").text
    assert 'servelens_requests_total{code="200",component="predictor",inferenceservice="flights"' in text
    assert "servelens_request_duration_seconds_bucket" in text
    assert 'servelens_logger_offered_total{component="predictor"' in text


def test_nobody_upstream_is_a_typed_502(tmp_path: Path) -> None:
    running = Stack(tmp_path, "alone")
    with running.supervised():
        running.start_broker()
        running.start_serving()
        running.wait_ready()
        running.end("predictor")
        answer = httpx.get(f"http://{running.tap}/v2/models/flights")
        assert answer.status_code == 502
        assert set(answer.json()) == {"error"}
        text = httpx.get(f"http://{running.admin}/metrics").text
        assert "servelens_upstream_errors_total{" in text
