"""The explainer as KServe starts it, and other people's clients calling it."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import psutil
import pytest
import tritonclient.http as triton
from explainers_parts import ROW, ArtifactOf, risk
from model_server import Model, serving

from servelens.contract.schema import ModelSchema
from servelens.io.embedded import free_port

ROOT = Path(__file__).parent.parent.parent
NAMES = ("age", "income", "visits", "member", "city")


class Started:
    """`servelens explainer` with these words; the first line of its stdout."""

    def __init__(self, *words: str, environment: dict[str, str] | None = None) -> None:
        command = [Path(sys.executable).parent / "servelens", "explainer", *words]
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **(environment or {})}
        )
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], 30)
        self.line = self.process.stdout.readline() if ready else b""

    @property
    def address(self) -> str:
        return "127.0.0.1:" + str(orjson.loads(self.line)["listening"].rpartition(":")[2])

    def end(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors.decode()


@pytest.fixture
def model(schema: ModelSchema) -> Iterator[Model]:
    with serving(schema, risk) as running:
        yield running


def test_kserves_flags_start_it_unchanged(model: Model, artifact: ArtifactOf) -> None:
    """The arguments of CustomExplainer.GetContainer: the user's, then those the controller appends, in its order."""
    port = free_port()
    mine = ["--predictor_protocol", "v1", "--artifacts", str(artifact())]
    appended = ["--model_name", "m", "--predictor_host", model.address, "--http_port", str(port), "--workers", "3"]
    started = Started(*mine, *appended)
    try:
        assert orjson.loads(started.line) == {"listening": f"0.0.0.0:{port}"}
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/models/m:explain", json={"instances": [ROW]}, timeout=20)
        assert answer.status_code == 200
        assert httpx.get(f"http://127.0.0.1:{port}/v1/models/m").json()["ready"] is True
    finally:
        code, errors = started.end()
    assert code == 0, errors
    assert all(orjson.loads(line) for line in errors.splitlines())


def test_flags_of_kserves_sdk_are_known_and_ignored_and_others_are_errors(model: Model, artifact: ArtifactOf) -> None:
    common = [
        "--model_name",
        "m",
        "--predictor_host",
        model.address,
        "--http_port",
        "0",
        "--artifacts",
        str(artifact()),
    ]
    started = Started(
        *common, "--enable_latency_logging", "true", "--predictor_use_ssl", "false", "--grpc_port", "8081"
    )
    assert started.line
    code, errors = started.end()
    assert code == 0
    assert "--enable_latency_logging belongs to KServe and is ignored here" in errors
    wrong = Started(*common, "--predictor_protocoll", "v1")
    assert wrong.process.wait(20) == 2
    for flag, value, words in (
        ("--predictor_protocol", "v3", "Write v1 or v2"),
        ("--workers", "0", "1 or more"),
        ("--seed", "-1", "0 or more"),
        ("--deadline", "0s", "more than 0"),
        ("--predictor_host", "http://x", "HOST or HOST:PORT"),
        ("--artifacts", "/nowhere", "explainer.yaml"),
        ("--synthetic-key", "/nowhere", "Mount the Secret"),
    ):
        bad = Started(*common, flag, value)
        assert bad.process.wait(20) == 2
        assert bad.process.stderr is not None
        said = bad.process.stderr.read().decode().strip().splitlines()
        assert len(said) == 1
        assert words in said[0]


def test_it_starts_quickly_and_small(model: Model, artifact: ArtifactOf) -> None:
    """permutation_shap alone imports none of the heavy libraries."""
    words = ["--model_name", "m", "--predictor_host", model.address, "--http_port", "0", "--artifacts", str(artifact())]
    started = Started(*words)
    try:
        url = f"http://{started.address}/v1/models/m:explain"
        assert httpx.post(url, json={"instances": [ROW]}, timeout=20).status_code == 200
        maps = Path(f"/proc/{started.process.pid}/maps").read_text()
        memory = psutil.Process(started.process.pid).memory_info().rss
    finally:
        started.end()
    assert not [heavy for heavy in ("numba", "ray/", "sklearn", "torch", "spacy") if heavy in maps]
    assert memory < 250 << 20


@pytest.fixture
def running(model: Model, artifact: ArtifactOf) -> Iterator[str]:
    words = ["--model_name", "m", "--predictor_host", model.address, "--http_port", "0", "--artifacts", str(artifact())]
    started = Started(*words, "--predictor_protocol", "v2")
    yield started.address
    started.end()


def inputs(binary: bool) -> list[Any]:
    made = []
    kinds = ("FP64", "FP64", "FP64", "FP64", "BYTES")
    for name, value, kind in zip(NAMES, ROW, kinds, strict=True):
        tensor = triton.InferInput(name, [1], kind)
        array = np.array([value], object) if kind == "BYTES" else np.array([value], np.float64)
        tensor.set_data_from_numpy(array, binary_data=binary)
        made.append(tensor)
    return made


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_tritonclient_explains_and_reads_named_tensors(running: str, binary: bool) -> None:
    client = triton.InferenceServerClient(running)
    assert client.is_server_live()
    assert client.is_model_ready("m")
    assert "attributions" in {one["name"] for one in client.get_model_metadata("m")["outputs"]}
    wanted = ("attributions", "standard_errors", "base_values", "predictions", "feature_names", "complete")
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in wanted]
    # `infer` of the client, answered with the tensors it names …
    result = client.infer("m", inputs(binary), outputs=outputs)
    # … and the V2 explain route, with the client's own body and reader.
    body, size = client.generate_request_body(inputs(binary), outputs=outputs)
    headers = {"inference-header-content-length": str(size)} if size else {}
    raw = httpx.post(f"http://{running}/v2/models/m/explain", content=body, headers=headers, timeout=20)
    length = raw.headers.get("inference-header-content-length")
    explained = client.parse_response_body(raw.content, header_length=int(length) if length else None)
    client.close()
    for answer in (result, explained):
        attributions = answer.as_numpy("attributions")
        assert attributions.shape == (1, 1, 5)
        total = answer.as_numpy("base_values") + attributions.sum(axis=2)
        assert np.allclose(total, answer.as_numpy("predictions"))
        assert [
            name.decode() if isinstance(name, bytes) else name for name in answer.as_numpy("feature_names")
        ] == list(NAMES)
        assert answer.as_numpy("complete").tolist() == [True]
    assert np.array_equal(result.as_numpy("attributions"), explained.as_numpy("attributions"))
