"""Warm training processes: importing torch and transformers takes seconds, so it happens before a job arrives.

Not here: a single process (worker.child).
"""

import logging
import threading
from collections.abc import Sequence

from worker.child import TRAINING, TrainingProcess

_log = logging.getLogger("worker")


class WarmPool:
    """Processes that wait for an order.

    One is started when the worker starts and after each job, never during a job: it would compete for the CPU.
    """

    def __init__(self, command: Sequence[str] = TRAINING) -> None:
        self._command = command
        self._waiting: list[TrainingProcess] = []
        self._closed = False
        self._lock = threading.Lock()

    def add(self) -> None:
        """Start a process, unless the pool is closed."""
        with self._lock:
            if not self._closed:
                self._waiting.append(TrainingProcess(self._command))

    def take(self) -> TrainingProcess:
        """A running process: a warm one if there is one, otherwise a new one."""
        with self._lock:
            while self._waiting:
                process = self._waiting.pop(0)
                if process.alive:
                    return process
                _log.warning("A warm training process has died: %s", " | ".join(process.log.tail(3)))
                process.close()
        return TrainingProcess(self._command)

    def close(self) -> None:
        """End all waiting processes and start no more."""
        with self._lock:
            self._closed = True
            while self._waiting:
                self._waiting.pop().close()
