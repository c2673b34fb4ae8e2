"""The predictor's address: how it is written, and whether somebody answers there."""

import socket
from pathlib import Path

import pytest
from tap_parts import Predictor, answering

from logger.upstream import Upstream, unready
from servelens.contract.errors import ConfigError

NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080"),
        ("localhost:8080", "localhost:8080"),
        ("http://[::1]:8080/", "[::1]:8080"),
        ("unix:/run/model.sock", "unix:/run/model.sock"),
        ("unix:///run/model.sock", "unix:/run/model.sock"),
    ],
)
def test_it_is_written_in_one_way_and_read_again(text: str, written: str) -> None:
    assert str(Upstream.parse(text)) == written
    assert Upstream.parse(written) == Upstream.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "https://host:443",
        "http://host:8080/v1",
        "host:0",
        "host:70000",
        "unix:model.sock",
        "unix:/" + 107 * "x",
    ],
)
def test_anything_else_names_the_flag(text: str) -> None:
    with pytest.raises(ConfigError, match="--upstream"):
        Upstream.parse(text)


@pytest.mark.parametrize("unix", [False, True])
def test_it_is_ready_when_it_accepts_and_when_its_path_answers_well(tmp_path: Path, unix: bool) -> None:
    path = tmp_path / "model.sock" if unix else None
    with Predictor(answering(), path) as predictor:
        where = Upstream(path=str(path)) if path else Upstream("127.0.0.1", predictor.port)
        assert unready(where) is None
        assert unready(where, "/v2/health/ready") is None
    assert "not ready" in str(unready(where))


def test_a_path_that_is_not_found_is_not_ready() -> None:
    with Predictor(answering(NOT_FOUND)) as predictor:
        where = Upstream("127.0.0.1", predictor.port)
        assert unready(where, "/nowhere") == "the predictor answers /nowhere with 404"
        assert unready(where) is None


def test_one_that_accepts_and_says_nothing_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        where = Upstream("127.0.0.1", listener.getsockname()[1])
        assert "TimeoutError" in str(unready(where, "/v2/health/ready", timeout=0.2))
