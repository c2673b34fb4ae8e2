"""`servelens logger` or `bridge` as an operator starts it, and what it says of itself."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
from tap_parts import until

ROOT = Path(__file__).parent.parent


def flags(folder: Path, upstream: str, kafka: str, prefix: str) -> list[str]:
    """For `whole_logger`: any free ports, a service called ns/income."""
    return [
        "--port", "0",
        "--upstream", upstream,
        "--admin", "127.0.0.1:0",
        "--spool", str(folder / "spool"),
        "--kafka", kafka,
        "--topic-prefix", prefix,
        "--inference-service", "income",
        "--namespace", "ns",
        "--source-uri", "http://localhost:9081/",
    ]  # fmt: skip


class WholeLogger:
    """A running logger: the addresses of its start-up line, its account, its children."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log_file = process, log
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()
        self.addresses: dict[str, str] = orjson.loads(line)

    @property
    def port(self) -> int:
        return int(self.addresses["listening"].rpartition(":")[2])

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://{self.addresses['admin']}{path}", timeout=10)

    def account(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get("/spool").json()
        return found

    def wait_ready(self) -> None:
        until(lambda: self.get("/readyz").status_code == 200, "ready", 30)

    def wait_shipped(self, count: int) -> dict[str, Any]:
        try:
            until(lambda: self.account()["shipped"] >= count, f"{count} shipped", 60)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.account()}") from error
        return self.account()


@contextmanager
def whole_logger(folder: Path, *flags: str, stop: bool = True, service: str = "logger") -> Iterator[WholeLogger]:
    """With these flags; `stop` False kills it and its children at the end instead of asking."""
    log = folder / f"{service}.log"
    command = [Path(sys.executable).parent / "servelens", service, *flags]
    with log.open("ab") as sink:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sink, cwd=ROOT, env={**os.environ})
    try:
        yield WholeLogger(process, log)
    finally:
        (process.terminate if stop else process.kill)()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()
