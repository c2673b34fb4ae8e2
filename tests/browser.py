"""Chromium, headless and cut off from any network: what a page looks like, and what stands on it."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip


def chromium(*arguments: str, width: int = 1000, height: int = 900) -> str:
    """Run it with a fresh profile; its stdout. Skips where there is none."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs Chromium (make tools)")
    with tempfile.TemporaryDirectory(prefix="servelens-chromium-") as profile:
        command = [program, *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=90).stdout


def dom(page: Path | str, *more: str) -> str:
    """The DOM of a file, or of an address on this machine, after loading."""
    return chromium("--dump-dom", *more, page if isinstance(page, str) else page.as_uri())


def screenshot(page: Path, to: Path, *more: str) -> bytes:
    """A PNG of the page."""
    chromium(f"--screenshot={to}", *more, page.as_uri())
    return to.read_bytes()
