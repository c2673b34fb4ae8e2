"""How a setting reaches a command: flag over environment over file over default, and nothing unknown passes."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from servelens import options
from servelens.cli import app
from servelens.contract.errors import ConfigError
from servelens.io.kafka_settings import FLAGS, KafkaSettings

ROOT = typer.main.get_command(app)
DETECTOR = ["detector", "--kafka", "h:1", "--group", "g", "--profiles", "p"]


def slot(arguments: list[str], environ: dict[str, str]) -> str:
    """The `--slot` the detector command would get."""
    given = options.defaults(ROOT, arguments, environ)
    words = arguments[arguments.index("detector") + 1 :]
    command = ROOT.commands["detector"]  # type: ignore[attr-defined]
    context = command.make_context("detector", words, default_map=given.get("detector"))
    found: str = context.params["slot"]
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text("slot: 5s\nlateness: 9s\n")
    return path


def test_the_order_is_flag_environment_file_default(file: Path) -> None:
    environ = {"SERVELENS__DETECTOR_SLOT": "7s"}
    with_file = ["--config", str(file), *DETECTOR]
    assert slot(DETECTOR, {}) == "10s"
    assert slot(with_file, {}) == "5s"
    assert slot(with_file, environ) == "7s"
    assert slot([*with_file, "--slot", "9s"], environ) == "9s"


def test_the_file_may_be_named_by_the_environment(file: Path) -> None:
    assert slot(DETECTOR, {"SERVELENS__CONFIG": str(file)}) == "5s"


@pytest.mark.parametrize(
    ("text", "named"), [("slit: 5s", "slot"), ("- 1", "mapping"), ("a: [", "YAML"), ("upstream: x", "upstream")]
)
def test_a_file_with_anything_else_is_refused(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=named):
        options.defaults(ROOT, ["--config", str(path), *DETECTOR], {})


def test_an_unknown_variable_ends_with_2_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert options.run(ROOT, DETECTOR, {"SERVELENS__DETECTOR_SLOTT": "1s"}) == 2
    assert capsys.readouterr().err == (
        "servelens: SERVELENS__DETECTOR_SLOTT: is no setting. Did you mean SERVELENS__DETECTOR_SLOT?\n"
    )


def test_what_a_service_injects_is_no_setting_of_ours() -> None:
    assert slot(DETECTOR, {"SERVELENS_PORT": "tcp://10.0.0.1:80", "SERVELENS_SERVICE_HOST": "10.0.0.1"}) == "10s"


@pytest.mark.parametrize(
    ("arguments", "kept", "dropped"),
    [
        (["logger", "--log-url", "http://x", "--spool", "s"], ["logger", "--spool", "s"], ["--log-url"]),
        (["logger", "--log-batch-size=5", "--enable-batcher"], ["logger"], ["--log-batch-size", "--enable-batcher"]),
        (["detector", "--log-url", "x"], ["detector", "--log-url", "x"], []),
    ],
)
def test_kserves_own_flags_are_left_out_of_the_logger_alone(
    arguments: list[str], kept: list[str], dropped: list[str]
) -> None:
    assert options.without_foreign(arguments[:1], arguments) == (kept, dropped)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--role", "taps"], "--role"),
        (["--log-mode", "some"], "--log-mode"),
        (["--spool-bytes", "1GB"], "--spool-bytes"),
        (["--upstream", "https://x"], "--upstream"),
        (["--kafka", ""], "--kafka"),
    ],
)
def test_a_wrong_setting_of_the_logger_is_named(tmp_path: Path, more: list[str], named: str) -> None:
    command = [
        sys.executable, "-m", "servelens.cli", "logger", "--upstream", "http://127.0.0.1:1", "--namespace", "n",
        "--inference-service", "i", "--spool", str(tmp_path), "--kafka", "127.0.0.1:1",
        "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", *more,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert named in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_start_up_line_is_the_first_of_stdout_and_says_the_chosen_ports(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "servelens.cli", "logger", "--upstream", "http://127.0.0.1:1", "--namespace", "n",
        "--inference-service", "i", "--spool", str(tmp_path), "--kafka", "127.0.0.1:1",
        "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--grace", "1s",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert set(line) == {"listening", "admin"}
    assert all(int(address.rpartition(":")[2]) > 0 for address in line.values())


def commands(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not getattr(node, "commands", None):
        yield path, node
    for name, child in getattr(node, "commands", {}).items():
        yield from commands(child, (*path, name))


def test_every_command_that_speaks_to_kafka_takes_all_of_its_flags() -> None:
    found = {path: {option for one in command.params for option in one.opts} for path, command in commands(ROOT)}
    speaking = {path: flags for path, flags in found.items() if "--kafka-security" in flags}
    assert len(speaking) >= 8
    for path, flags in speaking.items():
        assert set(FLAGS) <= flags, path


def test_topics_are_made_and_checked_from_the_command_line(kafka: KafkaSettings, prefix: str) -> None:
    words = ["--kafka", kafka.bootstrap, "--topic-prefix", prefix, "--group", "g"]
    assert options.run(ROOT, ["topics", "apply", *words], {}) == 0
    assert options.run(ROOT, ["topics", "check", *words, "--partitions", "3"], {}) == 1
