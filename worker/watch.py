"""Watches one training process until it ends: records its events, renews the lease, stops it on request.

Not here: claiming a job, and recording how it ended (worker.supervisor).
"""

import signal
import time
from threading import Event
from typing import Literal

from core.config import Settings
from core.errors import Unavailable
from core.schemas.events import JobError, Metrics
from worker.child import Exited, TrainingProcess
from worker.logs import JobLogger
from worker.protocol import Ending, Failed, Message, ProtocolError, Ready, Stopped, Succeeded
from worker.recorder import Recorder

_POLL_SECONDS = 0.1
"""Longest sleep, and so the longest delay until a worker notices a shutdown."""
_TERM_SECONDS = 0.5
"""Seconds from SIGTERM to SIGKILL."""
_MAX_PENDING = 2000
"""Largest number of unrecorded events. If the database is unreachable for longer, the process waits."""

StopReason = Literal["cancel", "shutdown"]


class Watch:
    """Watches the process of one attempt."""

    def __init__(
        self, process: TrainingProcess, recorder: Recorder, *, settings: Settings, shutdown: Event, log: JobLogger
    ) -> None:
        self.reason: StopReason | None = None
        """Why the process was requested to stop; None if it was not."""
        self._process = process
        self._recorder = recorder
        self._settings = settings
        self._shutdown = shutdown
        self._log = log
        self._urgent = False
        self._database_down = False
        self._next_heartbeat = time.monotonic() + settings.heartbeat_seconds
        self._term_at = self._kill_at = float("inf")

    def until_end(self) -> Ending | Exited:
        """Wait for the final message of the process, or for its exit without one.

        Raises:
            LeaseLost: another worker has the job.
        """
        while True:
            try:
                message = self._next_message()
            except ProtocolError as error:
                self._log.error("%s", error.message)
                text = "The training process sent an invalid message. The server's log has details."
                return Failed(error=JobError(code=error.code, message=text))
            if isinstance(message, Succeeded | Failed | Stopped | Exited):
                return message
            # All messages that have arrived are recorded in one transaction.
            if time.monotonic() >= self._next_heartbeat or (self._urgent and message is None):
                self._heartbeat()
            if self._shutdown.is_set():
                self._request_stop("shutdown")
            if self._escalate():
                self._process.close()
                return Exited(-signal.SIGKILL)

    def _next_message(self) -> Message | Exited | None:
        wait = min(_POLL_SECONDS, max(0.0, self._next_heartbeat - time.monotonic()))
        if len(self._recorder.pending) >= _MAX_PENDING:
            time.sleep(wait)
            return None
        match message := self._process.next_message(0 if self._urgent else wait):
            case Ready():
                self._log.info("process %d is ready", self._process.pid)
            case None | Succeeded() | Failed() | Stopped() | Exited():
                pass
            case event:
                self._recorder.pending.append(event)
                # Stages and figures are recorded at once, metrics with the next heartbeat.
                self._urgent |= not (isinstance(event, Metrics) or self._database_down)
        return message

    def _heartbeat(self) -> None:
        self._urgent = False
        try:
            cancel = self._recorder.heartbeat()
        except Unavailable as error:
            if not self._database_down:
                self._log.warning("%s The process continues; its events are recorded later.", error.message)
            self._database_down = True
        else:
            if self._database_down:
                self._log.info("the database is reachable again")
            self._database_down = False
            if cancel:
                self._request_stop("cancel")
        self._next_heartbeat = time.monotonic() + self._settings.heartbeat_seconds

    def _request_stop(self, reason: StopReason) -> None:
        if self.reason is None:
            self._log.info("requested the process to stop: %s", reason)
            self._process.request_stop()
            self._term_at = time.monotonic() + self._settings.cancel_grace_seconds
            self._kill_at = self._term_at + _TERM_SECONDS
            self.reason = reason

    def _escalate(self) -> bool:
        """Send SIGTERM to a process that does not stop on request; returns whether it is time to kill it."""
        now = time.monotonic()
        if now >= self._term_at:
            self._log.warning("the process does not stop: sending SIGTERM")
            self._process.terminate()
            self._term_at = float("inf")
        return now >= self._kill_at
