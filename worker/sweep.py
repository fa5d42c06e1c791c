"""Finds lost jobs: jobs whose message was lost, jobs whose worker died, jobs that no worker will end.

Every worker has a sweep; an advisory lock lets one of them run at a time. Nothing is sent while messages wait, so that
the queue does not grow while all workers are busy. Not here: running a job (worker.supervisor).
"""

import logging
import os
import signal
import threading
from collections.abc import Callable

from core.config import Settings
from core.db import jobs, records
from core.db.session import Sessions, transaction
from core.errors import Unavailable
from worker.recorder import end_hopeless

_log = logging.getLogger("worker")
_LONGEST_SWEEP_SECONDS = 5.0


class Sweep:
    """A thread that sweeps every `sweep_seconds`."""

    def __init__(
        self, settings: Settings, *, sessions: Sessions, depth: Callable[[], int], send: Callable[[str], None]
    ) -> None:
        """`depth` counts waiting messages, `send` sends one; both may raise Unavailable."""
        self._settings = settings
        self._sessions = sessions
        self._depth = depth
        self._send = send
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop sweeping. May be called from a signal handler."""
        self._stop.set()

    def wait(self) -> None:
        """Wait a few seconds for the last sweep to end, after `stop`."""
        if self._thread.ident is not None:
            self._thread.join(_LONGEST_SWEEP_SECONDS)

    def once(self) -> int:
        """Sweep once; returns the number of jobs sent.

        Raises:
            Unavailable: the database or the broker cannot be reached.
        """
        with transaction(self._sessions) as session:
            if not records.try_sweep_lock(session):
                return 0
            if ended := end_hopeless(session, max_failures=self._settings.max_failures):
                _log.warning("ended %d jobs that no worker would have ended", ended)
        with transaction(self._sessions) as session:
            if not records.try_sweep_lock(session):
                return 0
            waiting = jobs.claimable(session)
            if not waiting or self._depth() > 0:
                return 0
            for job_id in waiting:
                self._send(job_id)
        _log.info("sent %d jobs again: %s", len(waiting), " ".join(waiting[:5]))
        return len(waiting)

    def _run(self) -> None:
        away = False
        try:
            while not self._stop.is_set():
                try:
                    # After an outage every lease may have expired: let healthy workers renew theirs first.
                    if away:
                        self._check_reachable()
                    else:
                        self.once()
                    away = False
                except Unavailable as error:
                    if not away:
                        _log.warning("sweeping is suspended: %s", error.message)
                    away = True
                self._stop.wait(self._settings.sweep_seconds)
        finally:
            if not self._stop.is_set():
                _log.critical("the sweep has failed: the worker exits, so that it can be restarted")
                os.kill(os.getpid(), signal.SIGTERM)

    def _check_reachable(self) -> None:
        with transaction(self._sessions) as session:
            jobs.claimable(session, limit=1)
        self._depth()
        _log.info("sweeping resumes")
