"""Logs as JSON lines on stderr: stdout belongs to the start-up line. Called once by every process."""

import logging
import sys
from typing import TextIO

import orjson

_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One JSON object a record: time, level, process, logger, message, whatever came in `extra`, and the traceback."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}",
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in record.__dict__.items() if key not in _OWN}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def configure(process: str, stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Send every log record of this process to `stream` (default stderr) as JSON lines."""
    sink = logging.StreamHandler(stream or sys.stderr)
    sink.setFormatter(JsonLines(process))
    root = logging.getLogger()
    root.handlers[:] = [sink]
    root.setLevel(level)
    # These report each retry of a broker that is away; our own loops say it once, with what to do.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line a call
