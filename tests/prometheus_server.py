"""A real Prometheus on a free port, scraping what it is told to, with our rules loaded."""

import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from servelens.io.embedded import free_port


@dataclass
class Prometheus:
    """Its address, and queries."""

    address: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query; AssertionError with Prometheus' words if it has an error."""
        answer = httpx.post(f"http://{self.address}/api/v1/query", data={"query": expression}, timeout=30).json()
        assert answer["status"] == "success", answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def value(self, expression: str) -> float:
        (one,) = self.query(expression)
        return float(one["value"][1])

    def get(self, path: str) -> Any:
        return httpx.get(f"http://{self.address}{path}", timeout=30).json()["data"]


@contextmanager
def scraping(folder: Path, targets: Mapping[str, str], rules: str, seconds: int = 1) -> Iterator[Prometheus]:
    """Prometheus with data and config in `folder`; `targets`: job → HOST:PORT."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("needs Prometheus (make tools)")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rules.yaml").write_text(rules)
    config = {
        "global": {"scrape_interval": f"{seconds}s", "evaluation_interval": f"{seconds}s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            {"job_name": job, "honor_labels": True, "static_configs": [{"targets": [address]}]}
            for job, address in targets.items()
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    command = [
        program, f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}", "--log.level=warn",
    ]  # fmt: skip
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                if httpx.get(f"http://{address}/-/ready", timeout=2).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            assert time.monotonic() < deadline, (folder / "prometheus.log").read_text()
            time.sleep(0.1)
        yield Prometheus(address)
    finally:
        process.terminate()
        process.wait(20)
