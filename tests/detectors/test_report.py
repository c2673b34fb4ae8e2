"""An Evidently report of a window: asked for by HTTP, made in its own process from Kafka's rows, with our verdict."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import browser
import httpx
import numpy as np
import orjson
import pytest
from detector_processes import GROUP, PARTITIONS, burst, detector, send, until
from risk_model import make_record

from detectors.profile import Profile
from detectors.report import reference_rows
from detectors.reporting import POLICY
from servelens.contract.events import Record
from servelens.contract.topics import Topics, group_topics, shared_topics
from servelens.io import topics
from servelens.io.kafka_settings import KafkaSettings, as_arguments


def test_the_reference_is_drawn_from_the_profile_as_it_was_counted(profile: Profile) -> None:
    rng = np.random.default_rng(0)
    for column in profile.columns:
        drawn = column.count(reference_rows(column, 20_000, rng))
        assert drawn / 20_000 == pytest.approx(column.counts / column.rows, abs=0.015)


def ask(address: str, path: str, token: str) -> httpx.Response:
    return httpx.get(f"http://{address}{path}", headers={"authorization": f"Bearer {token}"}, timeout=180)


@pytest.mark.slow
def test_a_report_shows_our_verdict_and_loads_nothing(
    kafka: KafkaSettings, prefix: str, profiles: Path, tmp_path: Path
) -> None:
    topics.create(kafka, (*shared_topics(prefix, PARTITIONS), *group_topics(prefix, PARTITIONS, GROUP)))
    token = tmp_path / "token"
    token.write_text("sesame")
    rng, seq = np.random.default_rng(1), 0
    with detector(kafka, prefix, profiles, "all", "--token-file", str(token)) as running:
        address = running.address  # type: ignore[attr-defined]
        for shift in (0.0, 1.2, 1.2, 1.2):
            made = burst(make_record, rng, 300, seq + 1, shift)
            send(kafka, Topics(prefix).payloads, made)
            seq += len(made)
            time.sleep(2.1)
        until(lambda: any(one["state"] == "drift" for one in models(address)), 60)
        (one,) = models(address)
        seen = ask(address, f"/api/v1/models/{one['key']}", "sesame").json()["timeline"][-1]
        answer = ask(address, f"/page/{one['key']}/{seen['last']}/report", "sesame")
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-security-policy"] == POLICY
        where = f"http://anyone:{token.read_text()}@{address}/page/{one['key']}/{seen['last']}/report"
        under_policy = browser.dom(where, "--virtual-time-budget=8000")
        began = time.monotonic()
        assert ask(address, f"/page/{one['key']}/{seen['last']}/report", "sesame").text == answer.text
        assert time.monotonic() - began < 2  # kept, not made again
    page = tmp_path / "report.html"
    page.write_text(answer.text)
    for shown in (under_policy, browser.dom(page)):  # as it is served, and from a file; cut off from any network
        for word in ("age", "income", "city", "Data drift detected", "ServeLens verdict", "svg"):
            assert word in shown
    for scheme in ((), ("--blink-settings=preferredColorScheme=0",)):
        shot = browser.screenshot(page, tmp_path / f"report{len(scheme)}.png", "--virtual-time-budget=8000", *scheme)
        assert len(shot) > 20_000


def models(address: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = ask(address, "/api/v1/models", "sesame").json().get("models", [])
    return found


@pytest.mark.slow
def test_rows_that_kafka_no_longer_holds_are_said_to_be_gone(
    kafka: KafkaSettings, prefix: str, profiles: Path, tmp_path: Path, exchange_record: Callable[..., Record]
) -> None:
    topics.create(kafka, shared_topics(prefix, PARTITIONS))
    job = {
        "kafka": as_arguments(kafka), "slots": [1, 2], "slotseconds": 10, "title": "t", "said": {},
        "pointers": {Topics(prefix).payloads: {"0": [0, 5]}}, "profile": str(profiles / "risk.profile"),
    }  # fmt: skip
    (tmp_path / "job.json").write_bytes(orjson.dumps(job))
    command = [sys.executable, "-m", "detectors.report", str(tmp_path / "job.json"), str(tmp_path / "out.html")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Kafka no longer holds those of this window" in done.stderr
