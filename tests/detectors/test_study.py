"""The study and the crash proof in their short forms, as `make study-drift` and `make crash-proof` run them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from study import samples
from study.monitoring import per_year

from detectors.pane import Pane

TESTS = Path(__file__).parents[1]


def last_line(script: str, *words: str, seconds: float = 400) -> str:
    command = [sys.executable, str(TESTS / script), *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


def test_the_fast_counting_of_the_study_is_that_of_panes() -> None:
    profile = samples.profile_of(np.random.default_rng(0), 4000, 0.0)
    z = samples.latent(np.random.default_rng(1), 700, 0.1)
    counted = samples.Counter.of(profile).pane(z)
    assert counted.counts.tolist() == Pane.of(profile, samples.table(z)).counts.tolist()


def test_the_bound_is_poisson_s_without_alarms_and_wider_where_one_reference_has_them_all() -> None:
    assert per_year([0] * 210, 500)[1] == pytest.approx(0.9986, abs=0.001)
    scattered, together = per_year([1] * 10 + [0] * 90, 500), per_year([10] + [0] * 99, 500)
    assert scattered[0] == together[0]
    assert together[1] > 1.5 * scattered[1]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_short_study_has_no_false_alarm_and_finds_every_shift(tmp_path: Path) -> None:
    if not (TESTS.parent / "build" / "nannyml" / ".ready").exists():
        pytest.skip("needs the study's data (make build/nannyml/.ready)")
    figures = last_line("study/drift.py", "--short", "--out", str(tmp_path))
    for expected in ("null0=0/80", "null0.02=0/80", "null0.1=0/80", "shift0.25@default=20/20", "shift0.25@0.001=20/20"):
        assert expected in figures
    assert "wrong 0" in figures
    assert "carloan=early 0, late 0" in figures
    assert {path.name for path in tmp_path.iterdir()} == {
        "false-alarms.png", "windows-to-alarm.png", "car-loan.png", "acs-employment.png",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.apache
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("apache_broker")  # skips where there is none
def test_the_short_crash_proof_counts_every_row_once() -> None:
    assert "broken=0" in last_line("crash/proof.py", "--short")
