"""The demo as a new user runs it, calm and with everything killed in the middle."""

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def demo(out: Path, *more: str) -> dict[str, bool]:
    """Run the README's first command; promise → whether it held."""
    arguments = " ".join(("--check", f"--out {out}", *more))
    done = subprocess.run(
        ["make", "demo", f"ARGS={arguments}"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    summary = json.loads((out / "summary.json").read_text())
    return {check["name"]: check["held"] for check in summary["checks"]}


@pytest.mark.slow
@pytest.mark.timeout(360)
def test_one_inference_through_the_house(tmp_path: Path) -> None:
    held = demo(tmp_path / "out")
    assert len(held) == 10
    assert all(held.values())
    assert "<svg" in (tmp_path / "out" / "explanation.html").read_text()


@pytest.mark.slow
@pytest.mark.timeout(360)
def test_the_same_while_everything_is_killed(tmp_path: Path) -> None:
    held = demo(tmp_path / "out", "--kill recorder,shipper,tap,predictor,worker,evaluator")
    assert all(held.values())
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert len([event for event in summary["events"] if "SIGKILL" in event]) == 6
    assert summary["account"]["restarts"] == {"tap": 1, "recorder": 1, "shipper": 1}


def test_a_process_that_cannot_be_killed_is_named(tmp_path: Path) -> None:
    command = [ROOT / ".venv/bin/servelens", "demo", "--out", str(tmp_path / "out"), "--kill", "broker"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "'broker' cannot be killed" in done.stderr
