"""`servelens profile` and `servelens dlq` as a user runs them: files, a stretch of the topic, announcements."""

import csv
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from detector_processes import PARTITIONS, burst, send
from risk_model import MODEL, make_record, rows_of

from detectors.activation import Announced
from detectors.profile import Profile
from detectors.profile_file import read_profile
from servelens.contract.topics import Topics, shared_topics
from servelens.io import topics
from servelens.io.kafka import read_all
from servelens.io.kafka_settings import KafkaSettings


def servelens(*words: str | Path, fails: int = 0) -> str:
    command = [sys.executable, "-m", "servelens.cli", *map(str, words)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == fails, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A model.yaml, and six weeks of rows with their hours, by day older people than by night."""
    (tmp_path / "model.yaml").write_text(MODEL)
    rng, began = np.random.default_rng(0), datetime(2026, 3, 2, tzinfo=UTC)
    with (tmp_path / "rows.csv").open("w") as out:
        writer = csv.writer(out)
        writer.writerow(["age", "income", "city", "score", "seen_at"])
        for hour in range(42 * 24):
            features, answers = rows_of(rng, 8, 1.0 if 8 <= hour % 24 < 20 else -1.0)
            for (age, income, city), (_, score) in zip(features, answers, strict=True):
                writer.writerow([age, income, city, score, (began + timedelta(hours=hour)).isoformat()[:19]])
    return tmp_path / "rows.csv", tmp_path / "model.yaml"


def test_profiles_are_built_shown_and_compared(files: tuple[Path, Path], tmp_path: Path) -> None:
    rows, model = files
    plain, hourly, bern = (tmp_path / f"{name}.profile" for name in ("plain", "hourly", "bern"))
    said = servelens("profile", "build", rows, "--model-file", model, "--out", plain, "--series", "age")
    assert "wrote" in said
    servelens(
        *("profile", "build", rows, "--model-file", model, "--out", hourly),
        *("--season", "hour-of-week", "--time-column", "seen_at"),
    )
    servelens("profile", "build", rows, "--model-file", model, "--out", bern, "--segment", "city=Bern")
    found = {path.stem: read_profile(path) for path in (plain, hourly, bern)}
    assert found["plain"].series == ("age",)
    assert found["hourly"].season == "hour-of-week"
    assert found["bern"].rows < found["plain"].rows
    assert found["hourly"].columns[0].deff < found["plain"].columns[0].deff
    shown = servelens("profile", "show", hourly)
    assert "season: hour-of-week" in shown
    assert "rows.csv" in shown
    compared = servelens("profile", "diff", plain, bern)
    assert "total variation" in compared
    assert "KS distance" in compared


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--season", "hour-of-day"], "--time-column"),
        (["--season", "hour-of-day", "--time-column", "age"], "--time-column"),
        (["--season", "monthly", "--time-column", "seen_at"], "--season"),
        (["--segment", "Bern"], "--segment"),
        (["--segment", "score=1"], "--segment"),
        (["--series", "height"], "--series"),
        (["--kafka", "h:1"], "DATA"),
    ],
)
def test_what_does_not_fit_is_named(files: tuple[Path, Path], tmp_path: Path, words: list[str], named: str) -> None:
    rows, model = files
    said = servelens("profile", "build", rows, "--model-file", model, "--out", tmp_path / "x.profile", *words, fails=2)
    assert named in said.splitlines()[-1]


def test_a_profile_from_a_stretch_of_the_topic_holds_the_rows_of_that_time(
    kafka: KafkaSettings, prefix: str, files: tuple[Path, Path], tmp_path: Path
) -> None:
    topics.create(kafka, shared_topics(prefix, PARTITIONS))
    rng, out = np.random.default_rng(1), tmp_path / "life.profile"
    send(kafka, Topics(prefix).payloads, burst(make_record, rng, 100, 1, 3.0))  # before the stretch
    time.sleep(1.1)
    began = datetime.now(UTC)
    time.sleep(0.1)
    made = burst(make_record, rng, 200, 101, 0.0)
    send(kafka, Topics(prefix).payloads, [*made, made[0]])  # one record twice
    ended = datetime.now(UTC) + timedelta(seconds=2)
    servelens(
        *("profile", "build", "--kafka", kafka.bootstrap, "--topic-prefix", prefix, "--model-file", files[1]),
        *("--from", began.isoformat(), "--to", ended.isoformat(), "--out", out),
    )
    profile = read_profile(out)
    assert profile.rows == 200 * 4
    assert {"topic", "from", "to"} <= profile.provenance.keys()
    assert [column.family for column in profile.columns] == ["feature"] * 3 + ["prediction"]
    age = profile.columns[0]
    assert age.high is not None
    assert age.high < 90


def test_a_profile_is_announced_for_a_moment_that_is_far_enough_ahead(
    kafka: KafkaSettings, prefix: str, profiles: Path, profile: Profile
) -> None:
    topics.create(kafka, shared_topics(prefix, PARTITIONS))
    words = ("profile", "activate", profiles / "risk.profile", "--kafka", kafka.bootstrap, "--topic-prefix", prefix)
    assert "--at" in servelens(*words, "--in", "30s", fails=2)
    before = time.time_ns() // 1000
    servelens(*words, "--in", "3m")
    announced = Announced()
    found = [announced.offer(record.key, record.value) for record in read_all(kafka, Topics(prefix).profiles, 0)]
    (read, moment) = next(one for one in found if one is not None)
    assert read.digest == profile.digest
    assert moment == pytest.approx(before + 180_000_000, abs=60_000_000)


def test_letters_of_a_group_that_is_not_there_are_refused(kafka: KafkaSettings, prefix: str) -> None:
    words = ("--kafka", kafka.bootstrap, "--topic-prefix", prefix, "--group", "nobody")
    for command in ("show", "replay"):
        said = servelens("dlq", command, *words, fails=2)
        assert "servelens topics apply --group nobody" in said
