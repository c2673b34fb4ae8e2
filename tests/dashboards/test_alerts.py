"""Every alert fires when it should, not a moment before, and never for want of traffic: by promtool, on real rules."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from promql_reading import nodes, selectors

from dashboards.alerts import ALERTS, rules, runbook
from dashboards.build import BOARDS, files
from dashboards.promql import labels

S = 'namespace="n",inferenceservice="i",component="predictor"'
M = f'{S},modelname="m",revision=""'
EXPLAINED = {"namespace": "n", "inferenceservice": "i"}
MODEL = {**EXPLAINED, "component": "predictor", "modelname": "m"}


class Case(NamedTuple):
    """Series in promtool's notation, a minute a sample; the minute it first fires, with which labels, how described."""

    series: dict[str, str]
    fires: int
    labels: dict[str, str]
    says: str


CASES = {
    "ServeLensDrift": Case(
        {f'servelens_drift_state{{{M},column="age"}}': "0x9 1 2x20"}, 11, {**MODEL, "column": "age"},
        "n/i: column age is in drift.",
    ),
    "ServeLensPayloadsLost": Case(
        {
            f"servelens_logger_offered_total{{{S}}}": "0+1000x60",
            f'servelens_logger_dropped_total{{{S},reason="spool_full"}}': "0x20 10+10x40",
            f'servelens_logger_dropped_total{{{S},reason="filtered"}}': "0+500x60",
        },
        27, EXPLAINED, "n/i: ",
    ),
    "ServeLensAccountBroken": Case(
        {
            f"servelens_logger_offered_total{{{S}}}": "0+100x60",
            f"servelens_logger_shipped_total{{{S}}}": "0+100x10 1090+100x49",
            f"servelens_logger_waiting{{{S}}}": "0x60",
            f'servelens_logger_dropped_total{{{S},reason="crash"}}': "0x60",
        },
        26, EXPLAINED, "n/i: 10 exchanges are neither",
    ),
    "ServeLensNotShipping": Case(
        {f"servelens_logger_waiting{{{S}}}": "0x10 5x50", f"servelens_logger_shipped_total{{{S}}}": "7x60"},
        21, EXPLAINED, "n/i: 5 wait.",
    ),
    "ServeLensUpstreamAway": Case(
        {
            f'servelens_requests_total{{{S},method="POST",code="200"}}': "0+100x60",
            f'servelens_upstream_errors_total{{{S},reason="refused"}}': "0x10 10+10x50",
        },
        13, EXPLAINED, "n/i: ",
    ),
    "ServeLensErrors": Case(
        {
            f'servelens_requests_total{{{S},method="POST",code="200"}}': "0+100x60",
            f'servelens_requests_total{{{S},method="POST",code="500"}}': "0x10 100+100x50",
        },
        21, EXPLAINED, "n/i: ",
    ),
    "ServeLensRestarting": Case(
        {f'servelens_logger_restarts_total{{{S},process="tap"}}': "0x10 1+1x50"},
        14, {**EXPLAINED, "process": "tap"}, "n/i: tap.",
    ),
    "ServeLensDetectorStalled": Case(
        {
            "servelens_evaluator_watermark_seconds": "0+60x10 600x50",
            'servelens_detector_lag_records{partition="0"}': "0x10 5x50",
            'servelens_detector_events_total{result="counted"}': "0+60x60",
        },
        26, {}, "Event time has stood still for 16m 0s.",
    ),
    "ServeLensNoEvaluator": Case(
        {'servelens_evaluator_active{pod="a"}': "1x10 0x50", 'servelens_evaluator_active{pod="b"}': "0x60"},
        13, {}, "0 hold the lease.",
    ),
    "ServeLensDeadLetters": Case(
        {'servelens_detector_dead_letters_total{reason="not_json"}': "0x10 3x50"},
        11, {"reason": "not_json"}, "not_json: ",
    ),
    "ServeLensLogTruncated": Case({"servelens_detector_gap_records_total": "0x10 100x50"}, 11, {}, ""),
    "ServeLensCoverageLow": Case(
        {f"servelens_window_coverage{{{M}}}": "1x10 0.75x60"}, 41, MODEL, "n/i: 75% of offered exchanges.",
    ),
    "ServeLensExplainerFailing": Case(
        {
            f'servelens_explanations_total{{{M},method="permutation_shap",result="complete"}}': "0+90x60",
            f'servelens_explanations_total{{{M},method="permutation_shap",result="failed"}}': "0x10 90+90x50",
        },
        21, EXPLAINED, "n/i: ",
    ),
    "ServeLensExplanationsUnsure": Case(
        {
            f'servelens_explanation_relative_error_bucket{{{M},method="permutation_shap",le="0.1"}}': "0x10 5+5x50",
            f'servelens_explanation_relative_error_bucket{{{M},method="permutation_shap",le="0.5"}}': "0x10 30+30x50",
            f'servelens_explanation_relative_error_bucket{{{M},method="permutation_shap",le="+Inf"}}': "0x10 30+30x50",
        },
        26, {**EXPLAINED, "method": "permutation_shap"}, "n/i: ",
    ),
}  # fmt: skip


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("needs promtool (make tools)")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("rules")
    (made / "rules.yaml").write_text(files()["prometheus/servelens.rules.yaml"])
    return made


def outcome(folder: Path, series: dict[str, str], minute: int, name: str) -> str:
    """What promtool says the alert does at that minute: it is told to expect nothing, and complains of what it got."""
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": one, "values": values} for one, values in series.items()],
                "alert_rule_test": [{"eval_time": f"{minute}m", "alertname": name, "exp_alerts": []}],
            }
        ],
    }
    path = folder / f"{name}-{minute}.yaml"
    path.write_text(yaml.safe_dump(test))
    done = promtool("test", "rules", str(path))
    said = done.stdout + done.stderr
    assert done.returncode == 0 or "got:" in said, said  # else the test file itself is at fault
    return "" if done.returncode == 0 else said


def test_promtool_finds_no_fault(folder: Path) -> None:
    done = promtool("check", "rules", str(folder / "rules.yaml"))
    assert done.returncode == 0, done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout
    assert len(ALERTS) >= 6


def test_every_alert_has_a_case() -> None:
    assert {alert.name for alert in ALERTS} == set(CASES)


@pytest.mark.parametrize("name", list(CASES))
def test_it_fires_when_it_should_and_not_a_minute_before(folder: Path, name: str) -> None:
    case = CASES[name]
    assert outcome(folder, case.series, case.fires - 1, name) == ""
    said = outcome(folder, case.series, case.fires, name)
    assert said, f"{name} did not fire in minute {case.fires}"
    got = said[said.index("got:") :]
    for label, value in {**case.labels, "severity": next(one.severity for one in ALERTS if one.name == name)}.items():
        assert f'{label}="{value}"' in got
    assert f'description="{case.says}' in got


@pytest.mark.parametrize("name", list(CASES))
def test_another_label_does_not_silence_it(folder: Path, name: str) -> None:
    """Scraped series carry `instance` and `pod` beside our labels."""
    case = CASES[name]
    more = {
        (one[:-1] + ',instance="x:1"}' if one.endswith("}") else one + '{instance="x:1"}'): values
        for one, values in case.series.items()
    }
    assert outcome(folder, more, case.fires, name)


@pytest.mark.parametrize("name", list(CASES))
def test_without_traffic_or_series_it_is_silent(folder: Path, name: str) -> None:
    still = {
        one: values if name == "ServeLensNoEvaluator" else re.sub(r".*", "0x120", values, count=1)
        for one, values in CASES[name].series.items()
        if "coverage" not in one and "active" not in one
    }
    for series in ({}, still):
        assert outcome(folder, series, 60, name) == ""


def test_expressions_name_only_what_the_catalogue_has() -> None:
    for alert in ALERTS:
        for series, matchers in selectors(alert.expression):
            assert {label for label, _, _ in matchers} <= set(labels(series)), alert.name
        assert "pvalue" not in alert.expression
        assert not [node for node in nodes(alert.expression) if type(node).__name__ == "SubqueryExpr"]


def test_descriptions_use_labels_the_alert_keeps() -> None:
    for alert in ALERTS:
        used = set(re.findall(r"\$labels\.(\w+)", alert.where))
        assert used <= set(CASES[alert.name].labels), alert.name


def test_every_alert_has_its_runbook_and_its_dashboard() -> None:
    text = runbook()
    for rule in rules()["groups"][0]["rules"]:
        assert f"## {rule['alert']}\n" in text
        assert rule["annotations"]["runbook"] == f"runbook.md#{rule['alert'].lower()}"
        assert rule["annotations"]["dashboard"].removeprefix("/d/servelens-") in BOARDS
        assert rule["labels"]["severity"] in ("critical", "warning")
