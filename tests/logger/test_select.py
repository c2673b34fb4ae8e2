import pytest

from logger.account import REASONS
from logger.select import model_of, reason_against


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/models/iris:predict", "iris"),
        ("/v1/models/iris:explain", "iris"),
        ("/v1/models/iris/versions/3:predict", "iris"),
        ("/serving/shop/iris/v1/models/iris:predict", "iris"),
        ("/v2/models/iris/infer", "iris"),
        ("/v2/models/iris/versions/2/infer", "iris"),
        ("/v2/models/my%20model/infer", "my model"),
        ("/v2/models/iris/ready", ""),
        ("/v1/models/iris", ""),
        ("/openai/v1/completions", ""),
        ("/", ""),
    ],
)
def test_the_path_names_the_model(path: str, model: str) -> None:
    assert model_of(path) == model


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models", "/v1/models/iris", "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/iris",
        "/v2/models/iris/ready", "/v2/models/iris/versions/1/ready", "/metrics", "/healthz", "/readyz", "/",
        "/openai/v1/models",
    ],
)  # fmt: skip
def test_questions_about_a_model_are_filtered_only_if_they_are_asked_with_get(path: str) -> None:
    assert reason_against("exchange", "GET", path) == "filtered"
    assert reason_against("exchange", "HEAD", path) == "filtered"
    assert reason_against("exchange", "POST", path) == ""


@pytest.mark.parametrize("path", ["/v1/models/iris:predict", "/v2/models/iris/infer", "/metricsx", "/v2/models/a/b/c"])
def test_everything_else_is_logged_whatever_the_method(path: str) -> None:
    assert reason_against("all", "POST", path) == ""
    assert reason_against("exchange", "GET", path) == ""


def test_mode_none_logs_nothing() -> None:
    assert reason_against("none", "POST", "/v1/models/iris:predict") == "not_logged"
    assert reason_against("none", "GET", "/metrics") == "not_logged"


def test_the_reasons_are_the_account_s() -> None:
    assert {"filtered", "not_logged"} <= set(REASONS)
