"""Lanes: who has which spool, and what becomes of a lane that the next start no longer has."""

from pathlib import Path

import pytest

from logger.arguments import arguments
from logger.lanes import lanes, left_behind
from logger.settings import LoggerSettings
from logger.spool import Spool
from servelens.contract.errors import ConfigError
from servelens.io.kafka_settings import KafkaSettings

ALL = ("tap", "recorder", "shipper")


def settings(folder: Path, **more: object) -> LoggerSettings:
    known: dict[str, object] = {
        "listen": "127.0.0.1:0",
        "upstream": "127.0.0.1:8080",
        "admin": "127.0.0.1:0",
        "spool": folder,
        "kafka": KafkaSettings("k:9092"),
        "topic_prefix": "inference",
        "namespace": "ns",
        "inference_service": "income",
    }
    return LoggerSettings(**(known | more))  # type: ignore[arg-type]


def test_workers_share_the_bound_and_nothing_else(tmp_path: Path) -> None:
    made = lanes(tmp_path, tmp_path / "c.sock", tmp_path / "taps", ALL, 3, 900)
    assert [lane.spool for lane in made] == [tmp_path, tmp_path / "worker-1", tmp_path / "worker-2"]
    assert [lane.socket.name for lane in made] == ["c.sock", "c-1.sock", "c-2.sock"]
    assert [lane.accounts.name for lane in made] == ["taps", "taps-1", "taps-2"]
    assert {lane.spool_bytes for lane in made} == {300}
    assert made[0].processes == ("recorder", "tap", "shipper")


def test_a_spool_of_an_earlier_worker_is_emptied_without_a_tap(tmp_path: Path) -> None:
    Spool(tmp_path / "worker-2").close()
    (tmp_path / "worker-3").mkdir()
    older = left_behind(tmp_path, 1)
    assert older == [2]
    assert left_behind(tmp_path, 3) == []
    made = lanes(tmp_path, tmp_path / "c.sock", tmp_path / "taps", ALL, 1, 900, older)
    assert [(lane.index, lane.processes) for lane in made[1:]] == [(2, ("recorder", "shipper"))]
    assert lanes(tmp_path, tmp_path / "c", tmp_path / "t", ("tap",), 1, 900, older)[1:] == []


def test_each_child_is_told_what_is_its_own(tmp_path: Path) -> None:
    given = settings(tmp_path, workers=2, capture_memory=64 << 20, max_connections=100, rules=Path("/r.yaml"))
    lane = lanes(tmp_path, given.socket_path, given.accounts, ALL, 2, 1 << 29)[1]
    tap = arguments(given, lane, "tap", 7)
    assert tap[:2] == ["--listen-fd", "7"]
    pairs = dict(zip(tap[::2], tap[1::2], strict=True))
    assert pairs["--capture-socket"] == str(tmp_path / "capture-1.sock")
    assert (pairs["--capture-memory"], pairs["--max-connections"]) == (str(32 << 20), "50")
    recorder = arguments(given, lane, "recorder")
    assert recorder[recorder.index("--rules") + 1] == "/r.yaml"
    assert "--redaction-key" not in recorder
    assert arguments(given, lane, "shipper")[-2:] == ["--kafka-security", "PLAINTEXT"]


def test_where_nothing_is_logged_only_the_tap_runs_and_hands_nothing_over(tmp_path: Path) -> None:
    given = settings(tmp_path, log_mode="none", kafka=None)
    assert given.processes == ("tap",)
    lane = lanes(tmp_path, given.socket_path, given.accounts, given.processes, 1, 1 << 29)[0]
    assert "--capture-socket" not in arguments(given, lane, "tap", 7)


@pytest.mark.parametrize(
    ("flag", "wrong"),
    [
        ("--workers", {"workers": 0}),
        ("--max-connections", {"max_connections": 0}),
        ("--trace-ratio", {"trace_ratio": 1.5}),
        ("--probe-path", {"probe_path": "health"}),
        ("--kafka", {"kafka": None}),
        ("--role", {"role": "both"}),
        ("--capture-socket", {"capture_socket": Path("/" + 110 * "x")}),
    ],
)
def test_a_wrong_setting_names_its_flag(tmp_path: Path, flag: str, wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"^{flag}:"):
        settings(tmp_path, **wrong)
