"""The builders: what they write, and that nothing outside of the catalogue can be written."""

import pytest

from dashboards import promql


def test_scoped_selectors_carry_the_variables_their_metric_has() -> None:
    scope = 'namespace=~"$namespace",inferenceservice=~"$inferenceservice"'
    assert promql.select("servelens_logger_waiting") == f"servelens_logger_waiting{{{scope}}}"
    assert promql.select("servelens_detector_lag_records") == "servelens_detector_lag_records"
    assert (
        promql.select("servelens_requests_total", 'code=~"5.."', scoped=False)
        == 'servelens_requests_total{code=~"5.."}'
    )


def test_what_the_catalogue_lacks_cannot_be_written() -> None:
    with pytest.raises(KeyError, match="servelens_reqests_total"):
        promql.select("servelens_reqests_total")
    with pytest.raises(KeyError):
        promql.select("servelens_requests_total_bucket")
    with pytest.raises(ValueError, match="has no label for cod="):
        promql.select("servelens_requests_total", 'cod="200"')
    with pytest.raises(ValueError, match="has no label column"):
        promql.rate("servelens_requests_total", by=("column",))


def test_functions() -> None:
    assert promql.rate("servelens_requests_total", by=("code",), over="5m", scoped=False) == (
        "sum by (code) (rate(servelens_requests_total[5m]))"
    )
    assert promql.quantile(0.95, "servelens_request_duration_seconds", over="5m", scoped=False) == (
        "histogram_quantile(0.95, sum by (le) (rate(servelens_request_duration_seconds_bucket[5m])))"
    )
    assert promql.share("a", "b") == "(a or 0 * b) / (b > 0)"
