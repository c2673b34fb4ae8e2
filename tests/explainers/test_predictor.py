"""The predictor client over real HTTP: every protocol gives the same outputs; every way to fail has its own error."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import orjson
import pytest
from explainers_parts import CITIES, background, risk
from model_server import Model, serving
from starlette.responses import Response

from explainers import dialects
from explainers.coding import Coding, Rows
from explainers.dialects import Shape
from explainers.predictor import Predictor, PredictorSettings
from servelens.contract import synthetic
from servelens.contract.errors import DeadlineExceeded, UpstreamAway, UpstreamError
from servelens.contract.schema import ModelSchema, parse_model
from servelens.contract.table import Table
from servelens.io.embedded import free_port


@pytest.fixture
def rows(schema: ModelSchema) -> tuple[Coding, Rows, Any]:
    columns = {name: np.asarray(values) for name, values in background(7).items()}
    table = Table.of(
        {name: np.array(values, object) if name == "city" else values.astype(float) for name, values in columns.items()}
    )
    coding = Coding(schema, table)
    return coding, coding.encode(table), risk(table)[:, 1]


def ask(model: Model, coding: Coding, rows: Rows, seconds: float = 10, lane: str = "", **more: Any) -> Any:
    async def once() -> Any:
        predictor = Predictor(PredictorSettings(f"http://{model.address}", model.name, **more), coding)
        try:
            return await predictor.call(rows, seconds, lane)
        finally:
            await predictor.close()

    return asyncio.run(once())


@pytest.mark.parametrize(
    ("protocol", "binary", "path", "first"),
    [
        ("v1", "auto", "/v1/models/m:predict", b'{"instances":[['),
        ("v2", "never", "/v2/models/m/infer", b'{"inputs":[{'),
        ("v2", "auto", "/v2/models/m/infer", b'{"inputs":[{'),
        ("v2", "always", "/v2/models/m/infer", b'{"inputs":[{'),
    ],
)
def test_every_protocol_asks_about_the_same_rows(
    schema: ModelSchema, rows: tuple[Coding, Rows, Any], protocol: str, binary: str, path: str, first: bytes
) -> None:
    coding, asked, expected = rows
    with serving(schema, risk) as model:
        outputs = ask(model, coding, asked, protocol=protocol, binary=binary)
        assert outputs.shape == (7, 1)
        assert np.allclose(outputs[:, 0], expected, rtol=1e-6)
        assert model.paths == [path]
        is_binary = not model.bodies[0].endswith(b"}")
        assert is_binary == (binary in ("auto", "always") and protocol == "v2")


def test_whole_numbers_and_truths_travel_as_such(schema: ModelSchema, rows: tuple[Coding, Rows, Any]) -> None:
    coding, asked, _ = rows
    with serving(schema, risk) as model:
        ask(model, coding, asked)
        sent = orjson.loads(model.bodies[0])["instances"]
    assert {tuple(type(value) for value in row) for row in sent} == {(float, float, int, bool, str)}
    assert {row[4] for row in sent} <= set(CITIES)


def test_a_server_without_the_extension_gets_json(schema: ModelSchema, rows: tuple[Coding, Rows, Any]) -> None:
    coding, asked, expected = rows
    with serving(schema, risk, extensions=()) as model:
        assert np.allclose(ask(model, coding, asked, protocol="v2")[:, 0], expected)
        assert model.bodies[0].endswith(b"}")


NUMBERS = parse_model(
    "{schemaversion: 1, identity: {namespace: n, inferenceservice: i}, "
    "features: [{name: x, type: numeric}, {name: y, type: numeric}], outputs: {kind: values}}"
)


@pytest.mark.parametrize(
    ("inputs", "shape", "tensors"),
    [
        ([], None, [("input-0", "FP64", [3, 2])]),
        ([{"name": "feats", "datatype": "FP32", "shape": [-1, 2]}], None, [("feats", "FP32", [3, 2])]),
        (
            [{"name": "x", "datatype": "INT64", "shape": [-1]}, {"name": "y", "datatype": "FP32", "shape": [-1]}],
            None,
            [("x", "INT64", [3]), ("y", "FP32", [3])],
        ),
        ([], Shape(), [("x", "FP64", [3]), ("y", "FP64", [3])]),
        ([{"name": "other"}], Shape("z", "FP16"), [("z", "FP16", [3, 2])]),
    ],
    ids=["silent", "matrix", "named", "told columns", "told matrix"],
)
def test_tensors_are_what_the_model_wants(inputs: list[Any], shape: Any, tensors: list[Any]) -> None:
    coding = Coding(NUMBERS, Table.of({"x": np.zeros(1), "y": np.zeros(1)}))
    asked = Rows(np.array([[1.0, 0.5], [2.0, 0.25], [3.0, 4.0]]))
    with serving(NUMBERS, lambda table: table.columns["x"] + table.columns["y"], inputs=inputs) as model:
        outputs = ask(model, coding, asked, protocol="v2", binary="always", shape=shape)
        header, _ = orjson.loads(model.bodies[0][: model.bodies[0].index(b"]}") + 2]), None
    assert [(one["name"], one["datatype"], one["shape"]) for one in header["inputs"]] == tensors
    assert outputs[:, 0].tolist() == [1.5, 2.25, 7.0]


def test_it_has_its_own_identity_and_is_signed(schema: ModelSchema, rows: tuple[Coding, Rows, Any]) -> None:
    coding, asked, _ = rows
    with serving(schema, risk) as model:
        ask(model, coding, asked, token="own", key=b"secret")
        ask(model, coding, asked, lane="Bearer caller", token="own")
        ask(model, coding, asked)
    own, forwarded, bare = model.headers
    assert own["authorization"] == "Bearer own"
    assert synthetic.verifier(b"secret")(own[synthetic.HEADER])
    assert forwarded["authorization"] == "Bearer caller"
    assert synthetic.HEADER not in forwarded
    assert "authorization" not in bare


def answered(status: int, body: bytes) -> Callable[[Any], Response]:
    return lambda _: Response(body, status, media_type="application/json")


async def never(_: Any) -> Any:
    await asyncio.sleep(30)


@pytest.mark.parametrize(
    ("trouble", "error", "words"),
    [
        (answered(500, b'{"error": "out of memory"}'), UpstreamError, "answered 500: out of memory"),
        (answered(503, b"<html>"), UpstreamError, "answered 503$"),
        (answered(200, b"not json"), UpstreamError, "cannot be read: body"),
        (answered(200, b'{"predictions": [[0.5, 0.5]]}'), UpstreamError, "answered 1 rows to 7"),
        (lambda answer: answer[:-1], UpstreamError, "answered 6 rows to 7"),
        (lambda answer: answer * np.nan, UpstreamError, "NaN or infinity"),
        (lambda answer: np.hstack([answer, answer]), UpstreamError, "4 values a row"),
    ],
)
def test_an_answer_that_is_none_is_a_typed_error(
    schema: ModelSchema, rows: tuple[Coding, Rows, Any], trouble: Any, error: type[Exception], words: str
) -> None:
    with serving(schema, risk, trouble=trouble) as model, pytest.raises(error, match=words):
        ask(model, rows[0], rows[1])


def test_a_predictor_that_hangs_costs_the_deadline_and_no_more(
    schema: ModelSchema, rows: tuple[Coding, Rows, Any]
) -> None:
    began = time.monotonic()
    with serving(schema, risk, trouble=never) as model, pytest.raises(DeadlineExceeded):
        ask(model, rows[0], rows[1], seconds=0.3)
    assert time.monotonic() - began < 3


def test_nobody_there_says_so(schema: ModelSchema, rows: tuple[Coding, Rows, Any]) -> None:
    model = Model(schema, risk, address=f"127.0.0.1:{free_port()}")
    with pytest.raises(UpstreamAway, match="--predictor_host"):
        ask(model, rows[0], rows[1])


def test_a_connection_that_breaks_is_tried_once_more(schema: ModelSchema, rows: tuple[Coding, Rows, Any]) -> None:
    """Keep-alive races: the server closed what the client believed to be open."""
    coding, asked, expected = rows
    codes: list[str] = []

    async def flaky() -> tuple[str, int, list[int]]:
        hits: list[int] = []

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            hits.append(1)
            if len(hits) > 1:
                body = orjson.dumps({"predictions": [[1 - one, one] for one in expected.tolist()]})
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        predictor = Predictor(
            PredictorSettings(f"http://127.0.0.1:{port}", "m"), coding, lambda code, *_: codes.append(code)
        )
        outputs = await predictor.call(asked, 5)
        assert np.allclose(outputs[:, 0], expected)
        await predictor.close()
        server.close()
        return "", port, hits

    asyncio.run(flaky())
    assert codes == ["broken", "200"]


Ask = Callable[..., Awaitable[Any]]


def test_labels_become_one_column_a_class() -> None:
    labels = parse_model(
        "{schemaversion: 1, identity: {namespace: n, inferenceservice: i}, features: [{name: x, type: numeric}], "
        "outputs: {kind: labels, classes: [low, high]}}"
    )
    coding = Coding(labels, Table.of({"x": np.zeros(1)}))

    def said(answer: Any) -> Response:
        return Response(orjson.dumps({"predictions": ["high" if one > 1 else "low" for one in answer.tolist()]}))

    with serving(labels, lambda table: table.columns["x"], trouble=said) as model:
        assert ask(model, coding, Rows(np.array([[0.0], [2.0]]))).tolist() == [[1, 0], [0, 1]]
    with (
        serving(labels, lambda table: table.columns["x"], trouble=answered(200, b'{"predictions": ["odd"]}')) as model,
        pytest.raises(UpstreamError, match=r"a label that outputs\.classes"),
    ):
        ask(model, coding, Rows(np.array([[0.0]])))


@pytest.mark.parametrize(
    ("datatype", "value", "sent"),
    [
        ("UINT8", 300.0, "FP64"),
        ("UINT8", -1.0, "FP64"),
        ("UINT8", 255.0, "UINT8"),
        ("INT32", 3e9, "FP64"),
        ("INT64", 1e300, "FP64"),
        ("BOOL", 2.0, "FP64"),
        ("BOOL", 1.0, "BOOL"),
        ("INT32", 1.5, "FP64"),
        ("INT32", np.nan, "FP64"),
    ],
)
def test_no_value_is_wrapped_to_fit_a_datatype(datatype: str, value: float, sent: str) -> None:
    tensor = dialects._typed("x", np.array([value, 1.0]), datatype)
    assert tensor.datatype == sent
    assert np.array_equal(tensor.data.astype(float), [value, 1.0], equal_nan=True)


def test_v1_writes_each_value_as_what_it_is() -> None:
    assert dialects._json("integer", np.array([1.0, 1.5, 1e300, np.inf])) == [1, 1.5, 1e300, np.inf]
    assert dialects._json("boolean", np.array([1.0, 0.0, 2.0])) == [True, False, 2.0]


def test_metadata_that_fails_for_a_moment_settles_nothing(schema: ModelSchema, rows: tuple[Coding, Rows, Any]) -> None:
    coding, asked, expected = rows
    answers = [503, 200]

    async def twice() -> Any:
        with serving(schema, risk, statuses=answers) as model:
            predictor = Predictor(PredictorSettings(f"http://{model.address}", "m", "v2"), coding)
            with pytest.raises(UpstreamError, match="answered 503 to /v2"):
                await predictor.call(asked, 5)
            outputs = await predictor.call(asked, 5)
            await predictor.close()
            return outputs, model.bodies

    outputs, bodies = asyncio.run(twice())
    assert np.allclose(outputs[:, 0], expected)
    assert not bodies[0].endswith(b"}")  # binary, as the server said when it could


def test_no_cookie_is_kept(schema: ModelSchema, rows: tuple[Coding, Rows, Any]) -> None:
    coding, asked, _ = rows

    def with_cookie(answer: Any) -> Response:
        body = orjson.dumps({"predictions": answer.tolist()})
        return Response(body, headers={"set-cookie": "session=of-alice; Path=/"})

    async def twice(address: str) -> None:
        predictor = Predictor(PredictorSettings(f"http://{address}", "m"), coding)
        for caller in ("Bearer alice", "Bearer bob"):
            await predictor.call(asked, 5, caller)
        await predictor.close()

    with serving(schema, risk, trouble=with_cookie) as model:
        asyncio.run(twice(model.address))
        assert all("cookie" not in headers for headers in model.headers)


def test_one_slow_call_is_asked_again_while_there_is_time(schema: ModelSchema, rows: tuple[Coding, Rows, Any]) -> None:
    coding, asked, expected = rows
    with serving(schema, risk) as model:

        async def first_only(answer: Any) -> Any:
            await asyncio.sleep(1.0 if len(model.calls) == 1 else 0)
            return answer

        model.trouble = first_only
        outputs = ask(model, coding, asked, seconds=5, call_seconds=0.3)
        assert np.allclose(outputs[:, 0], expected)
        model.trouble = never
        with pytest.raises(UpstreamError, match=r"longer than 0\.2 s for one call, twice"):
            ask(model, coding, asked, seconds=5, call_seconds=0.2)
