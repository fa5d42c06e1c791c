"""Logs: stderr of a training process in one bounded file per attempt, and the log of the worker.

Not here: events, which are for users (core.db.records).
"""

import logging
import sys
import threading
import time
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

from typing_extensions import override

_FILE_BYTES = 4 * 2**20
_TAIL_BYTES = 16 * 2**10
_KEEP_SECONDS = 30 * 24 * 3600
_FULL = b"\n... the log has reached its limit, the rest is missing\n"


class AttemptLog:
    """The log of one process. Until `open` only its end is stored, which then becomes the start of the file."""

    def __init__(self, limit: int = _FILE_BYTES) -> None:
        self._left = limit
        self._tail = b""
        self._path: Path | None = None
        self._lock = threading.Lock()

    def open(self, path: Path) -> None:
        """Write to this file from now on."""
        with self._lock:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            self._path = path
            self._write(self._tail)

    def feed(self, data: bytes) -> None:
        """Add output of the process."""
        with self._lock:
            self._tail = (self._tail + data)[-_TAIL_BYTES:]
            self._write(data)

    def tail(self, lines: int) -> list[str]:
        """The last non-empty lines."""
        with self._lock:
            text = self._tail.decode(errors="replace").replace("\x00", "\ufffd")
        return [line.strip() for line in text.splitlines() if line.strip()][-lines:]

    def _write(self, data: bytes) -> None:
        if self._path is None or self._left <= 0:
            return
        self._left -= len(data)
        # A full disk loses the log, not the job; and the process must never wait for the log to be read.
        with suppress(OSError), self._path.open("ab") as file:
            file.write(data if self._left > 0 else data[: self._left] + _FULL)


def clean(folder: Path) -> None:
    """Remove logs that are older than a month."""
    for path in folder.glob("*.log"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _KEEP_SECONDS:
                path.unlink()


class OneLine(logging.Formatter):
    """Formats a record as one line, with its traceback."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", "\\n")


class JobLogger(logging.LoggerAdapter[logging.Logger]):
    """Puts the job and its attempt in front of every message."""

    @override
    def process(self, msg: object, kwargs: MutableMapping[str, object]) -> tuple[str, MutableMapping[str, object]]:
        """Called by logging."""
        extra = self.extra or {}
        return f"{extra['job']}#{extra['attempt']}: {msg}", kwargs


def job_logger(job_id: str, attempt: int) -> JobLogger:
    """A logger for one attempt at one job."""
    return JobLogger(logging.getLogger("worker"), {"job": job_id, "attempt": attempt})


def configure(**_: object) -> None:
    """Write one line for each record to stderr; a handler of Celery's signal `setup_logging`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
