"""Who stands between client and predictor: nobody, nginx with one worker, `servelens logger` as a user starts it.

Each is a context manager of a `Contestant`. What forwards is pinned to one core; recorder, shipper and broker run
wherever the scheduler puts them, so beside a forwarder that fills its core they compete with client and predictor.
"""

import functools
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from servelens.io.embedded import free_port

ROOT = Path(__file__).parents[3]
# As fast as it goes: no log, bodies streamed (by default they would go over a temporary file from 16 KiB), kept
# connections for as long as the run lasts.
NGINX = """worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; client_max_body_size 16m;
  keepalive_requests 1000000000;
  upstream u {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port} backlog=1024;
    location / {{ proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_request_buffering off; client_body_buffer_size 256k; }} }} }}"""
START_SECONDS = 30.0


@dataclass
class Contestant:
    """Where it listens, and its processes by name; the `forwarder` is the one on the way of an exchange."""

    name: str
    port: int
    processes: Mapping[str, psutil.Process] = field(default_factory=dict)
    forwarder: str = ""
    admin: str = ""

    def account(self) -> dict[str, Any]:
        """What the logger's admin port says of it."""
        with urllib.request.urlopen(f"http://{self.admin}/spool", timeout=10) as answer:
            return json.load(answer)


@contextmanager
def nginx(upstream: int, folder: Path, cores: list[int]) -> Iterator[Contestant]:
    """One worker."""
    folder.mkdir()
    port = free_port()
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, upstream=upstream, port=port))
    process = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")])
    try:
        _until(lambda: psutil.Process(process.pid).children(), "nginx")
        worker = psutil.Process(process.pid).children()[0]
        _pin(worker, cores)
        yield Contestant("nginx", port, {"nginx": worker}, "nginx")
    finally:
        process.terminate()
        process.wait()


@functools.cache
def knows(flag: str) -> bool:
    """Whether the recorder has such a flag."""
    command = [sys.executable, "-m", "logger.recorder", "--help"]
    return flag in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout


@contextmanager
def logger(
    name: str, upstream: int, folder: Path, cores: list[int], *more: str, graceful: bool = False
) -> Iterator[Contestant]:
    """`servelens logger` and its processes; the spool is `folder`. Killed at the end unless `graceful`."""
    folder.mkdir()
    words = ["--upstream", f"http://127.0.0.1:{upstream}", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    words += ["--spool", str(folder), "--namespace", "bench", "--inference-service", "income", *more]
    with folder.with_suffix(".log").open("wb") as log:
        parent = _servelens("logger", *words, stdout=subprocess.PIPE, stderr=log)
    family = [psutil.Process(parent.pid)]
    try:
        said = parent.stdout.readline()
        if not said:
            raise RuntimeError(f"servelens logger did not start: {folder.with_suffix('.log').read_text()[-2000:]}")
        where = json.loads(said)
        made = Contestant(name, int(where["listening"].rpartition(":")[2]), {}, "tap", where["admin"])
        _until(lambda: all(made.account()["processes"].values()), "the logger's processes")
        pids = made.account()["processes"]
        made.processes = {"parent": family[0]} | {child: psutil.Process(pid) for child, pid in pids.items()}
        family += list(made.processes.values())
        _pin(made.processes["tap"], cores)
        yield made
    finally:
        if graceful:
            parent.terminate()
            with suppress(subprocess.TimeoutExpired):
                parent.wait(60)
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        parent.wait()
        parent.stdout.close()


def _servelens(*words: str, **options: Any) -> subprocess.Popen[Any]:
    environment = {**os.environ, "COLUMNS": "300"}
    return subprocess.Popen([sys.executable, "-m", "servelens.cli", *words], cwd=ROOT, env=environment, **options)


def _pin(process: psutil.Process, cores: list[int]) -> None:
    if cores:
        process.cpu_affinity(cores)


def _until(ready: Any, what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not start within {START_SECONDS:.0f} s")
        time.sleep(0.05)
