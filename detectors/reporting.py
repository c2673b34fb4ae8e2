"""Reports on request: one process at a time, bounded in time, its pages kept for a while. Called by `api`.

Apart from `report`, which runs in that process and needs Evidently; a detector without it says so.
"""

import subprocess
import sys
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import orjson

from detectors import view
from detectors.evaluation import Evaluation
from detectors.fence import PAYLOADS, RETRY
from detectors.monitor import DRIFT
from detectors.profile import Profile
from detectors.profile_file import pack
from detectors.settings import DetectorSettings
from detectors.statistics import examine
from servelens.contract.errors import DeadlineExceeded, NotFound, Overloaded, StateError
from servelens.io.kafka_settings import as_arguments

SECONDS: Final = 120.0
KEPT: Final = 8  # pages
MOST_COLUMNS: Final = 20
# Its scripts are in the page, and it may load or send nothing.
POLICY: Final = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; worker-src blob:"
)


@dataclass(frozen=True, slots=True)
class Job:
    """A window to report on: the verdict's id, the profile, and what `report` is told."""

    id: str
    profile: Profile
    told: Mapping[str, Any]


class Reports:
    """Makes pages; NotFound where a window's rows are gone, Overloaded while another is being made."""

    def __init__(self, settings: DetectorSettings) -> None:
        self._settings = settings
        self._busy = threading.Lock()
        self._pages: OrderedDict[str, str] = OrderedDict()

    def job(self, evaluation: Evaluation, key: str, last: int) -> Job:
        """The job of a window whose counts are kept: every column as its tests and its state say."""
        watched, identity, seen, pane = view.subject(evaluation, key, last)
        tests = examine(watched.profile, pane, evaluation.group.statistics)
        judged = zip(tests, map(int, seen.states), strict=True)
        known = [(test, state) for test, state in judged if test.column in watched.profile.position]
        known.sort(key=lambda pair: (pair[1] != DRIFT, -pair[0].effect))
        topics, group = self._settings.topics, self._settings.group
        names = {PAYLOADS: topics.payloads, RETRY: topics.retry(group)}
        told = {
            "kafka": as_arguments(self._settings.kafka),
            "slots": [seen.first, seen.last],
            "slotseconds": evaluation.group.slot_seconds,
            "pointers": {names[name]: spans for name, spans in seen.pointers.items()},
            "title": f"{identity}, {seen.rows} rows, verdict {seen.state}, {seen.id[:12]}",
            "said": {
                test.column: {"effect": test.effect, "drifted": state == DRIFT, "statistic": test.statistic}
                for test, state in known[:MOST_COLUMNS]
            },
        }
        return Job(seen.id, watched.profile, told)

    def make(self, job: Job) -> str:
        """The page, made now or kept."""
        if job.id in self._pages:
            return self._pages[job.id]
        if find_spec("evidently") is None:
            raise NotFound("report: Evidently is not installed here; install servelens[reports]")
        if not self._busy.acquire(blocking=False):
            raise Overloaded("report: another one is being made", retry_after=5)
        try:
            page = _run(job)
        finally:
            self._busy.release()
        self._pages[job.id] = page
        while len(self._pages) > KEPT:
            self._pages.popitem(last=False)
        return page


def _run(job: Job) -> str:
    with tempfile.TemporaryDirectory(prefix="servelens-report-") as folder:
        told, profile, out = Path(folder) / "job.json", Path(folder) / "model.profile", Path(folder) / "report.html"
        profile.write_bytes(pack(job.profile))
        told.write_bytes(orjson.dumps({**job.told, "profile": str(profile)}))
        command = [sys.executable, "-m", "detectors.report", str(told), str(out)]
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired as error:
            raise DeadlineExceeded(f"report: not made within {SECONDS:.0f} s") from error
        if done.returncode == 0:
            return out.read_text()
    last = done.stderr.strip().splitlines()[-1:] or ["no words"]
    if "NotFound" in last[0]:
        raise NotFound(last[0].partition("NotFound: ")[2])
    raise StateError(f"report: Evidently failed ({last[0][:300]})")
