"""Finds what was lost: jobs whose message never arrived, jobs whose worker died, jobs that nobody will end.

Every worker has one sweep; an advisory lock lets one of them work at a time. Nothing is sent while messages wait, so
that the queue does not grow while all workers are busy.
Not here: doing a job (worker.supervisor).
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
    """Sweeps now and then, in a thread of its own."""

    def __init__(
        self, settings: Settings, *, sessions: Sessions, depth: Callable[[], int], send: Callable[[str], None]
    ) -> None:
        """`depth` says how many messages wait, `send` sends one; both may raise Unavailable."""
        self._settings = settings
        self._sessions = sessions
        self._depth = depth
        self._send = send
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Sweep no more. May be called from a signal handler."""
        self._stop.set()

    def wait(self) -> None:
        """Wait until the last sweep is over, after `stop`; not for ever, for a server may hang."""
        if self._thread.ident is not None:
            self._thread.join(_LONGEST_SWEEP_SECONDS)

    def once(self) -> int:
        """Sweep; returns how many jobs were sent.

        Raises:
            Unavailable: the database or the broker is away.
        """
        with transaction(self._sessions) as session:
            if not records.try_sweep_lock(session):
                return 0
            if ended := end_hopeless(session, max_failures=self._settings.max_failures):
                _log.warning("ended %d jobs that no worker would have", ended)
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
                    # After an outage every lease may have run out: let living workers renew theirs first.
                    if not away:
                        self.once()
                    else:
                        away = self._look()
                except Unavailable as error:
                    if not away:
                        _log.warning("sweeping stops until this is over: %s", error.message)
                    away = True
                self._stop.wait(self._settings.sweep_seconds)
        finally:
            if not self._stop.is_set():
                _log.critical("the sweep has failed: this worker ends, so that it can be started afresh")
                os.kill(os.getpid(), signal.SIGTERM)

    def _look(self) -> bool:
        with transaction(self._sessions) as session:
            jobs.claimable(session, limit=1)
        self._depth()
        _log.info("sweeping again")
        return False
