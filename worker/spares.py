"""Warm training processes that wait for an order: importing torch and transformers takes seconds, a job should not.

Not here: a process itself (worker.child).
"""

import logging
import threading
from collections.abc import Sequence

from worker.child import TRAINING, TrainingProcess

_log = logging.getLogger("worker")


class Spares:
    """Started when a worker starts and after each job, never beside one: it would take its processor time."""

    def __init__(self, command: Sequence[str] = TRAINING) -> None:
        self._command = command
        self._waiting: list[TrainingProcess] = []
        self._closed = False
        self._lock = threading.Lock()

    def add(self) -> None:
        """Start one, unless this worker is on its way out."""
        with self._lock:
            if not self._closed:
                self._waiting.append(TrainingProcess(self._command))

    def take(self) -> TrainingProcess:
        """A living process, warm where there is one."""
        with self._lock:
            while self._waiting:
                process = self._waiting.pop(0)
                if process.alive:
                    return process
                _log.warning("A waiting training process has died: %s", " | ".join(process.log.tail(3)))
                process.close()
        return TrainingProcess(self._command)

    def close(self) -> None:
        """End them all, and start no more."""
        with self._lock:
            self._closed = True
            while self._waiting:
                self._waiting.pop().close()
