"""Watches one training process until it has ended: records what it says, renews the lease, makes it stop when asked.

Not here: claiming a job, and recording how it ended (worker.supervisor).
"""

import signal
import time
from threading import Event
from typing import Literal

from core.config import Settings
from core.errors import Unavailable
from core.schemas.events import JobError, Metrics, PipelineEvent
from worker.child import Gone, TrainingProcess
from worker.logs import JobLogger
from worker.protocol import Ending, Failed, ProtocolError, Ready, Stopped, Succeeded, Word
from worker.recorder import News, Recorder

_TICK_SECONDS = 0.1
"""Longest sleep: how soon a worker notices that it shall stop."""
_TERM_SECONDS = 0.5
"""From SIGTERM to SIGKILL."""
_PENDING = 2000
"""So many events are kept while the database is away. Then the process has to wait: nothing is dropped."""

StopReason = Literal["cancel", "shutdown"]


class Watch:
    """The watch over one attempt."""

    def __init__(
        self, process: TrainingProcess, recorder: Recorder, *, settings: Settings, shutdown: Event, log: JobLogger
    ) -> None:
        self.reason: StopReason | None = None
        """Why the process was asked to stop, if it was."""
        self._process = process
        self._recorder = recorder
        self._settings = settings
        self._shutdown = shutdown
        self._log = log
        self._events: list[PipelineEvent] = []
        self._urgent = False
        self._database_away = False
        self._next_beat = time.monotonic() + settings.heartbeat_seconds
        self._term_at = self._kill_at = float("inf")

    @property
    def news(self) -> News:
        """What is not recorded yet."""
        return News(self._process.progress, tuple(self._events))

    def until_end(self) -> Ending | Gone:
        """Wait until the process says how it ended, or is gone without having said so.

        Raises:
            LeaseLost: the job is somebody else's now.
        """
        while True:
            try:
                word = self._listen()
            except ProtocolError as error:
                self._log.error("%s", error.message)
                message = "The training process and its worker do not understand each other. The server's log has more."
                return Failed(error=JobError(code=error.code, message=message))
            if isinstance(word, Succeeded | Failed | Stopped | Gone):
                return word
            # All that is there goes into one transaction.
            if time.monotonic() >= self._next_beat or (self._urgent and word is None):
                self._beat()
            if self._shutdown.is_set():
                self._ask_to_stop("shutdown")
            if self._press():
                self._process.close()
                return Gone(-signal.SIGKILL)

    def _listen(self) -> Word | Gone | None:
        wait = min(_TICK_SECONDS, max(0.0, self._next_beat - time.monotonic()))
        if len(self._events) >= _PENDING:
            time.sleep(wait)
            return None
        match word := self._process.next_word(0 if self._urgent else wait):
            case Ready():
                self._log.info("the process %d is ready", self._process.pid)
            case None | Succeeded() | Failed() | Stopped() | Gone():
                pass
            case event:
                self._events.append(event)
                # Stages and figures are seen at once, metrics with the next beat.
                self._urgent |= not (isinstance(event, Metrics) or self._database_away)
        return word

    def _beat(self) -> None:
        self._urgent = False
        try:
            cancel = self._recorder.beat(self.news)
        except Unavailable as error:
            if not self._database_away:
                self._log.warning("%s The process goes on; what it says is recorded later.", error.message)
            self._database_away = True
        else:
            if self._database_away:
                self._log.info("the database is back")
            self._database_away = False
            self._events.clear()
            if cancel:
                self._ask_to_stop("cancel")
        self._next_beat = time.monotonic() + self._settings.heartbeat_seconds

    def _ask_to_stop(self, reason: StopReason) -> None:
        if self.reason is None:
            self._log.info("the process shall stop: %s", reason)
            self._process.ask_to_stop()
            self._term_at = time.monotonic() + self._settings.cancel_grace_seconds
            self._kill_at = self._term_at + _TERM_SECONDS
            self.reason = reason

    def _press(self) -> bool:
        """Press a process that was asked to stop and does not; True when it is time to kill it."""
        now = time.monotonic()
        if now >= self._term_at:
            self._log.warning("the process does not stop: SIGTERM")
            self._process.terminate()
            self._term_at = float("inf")
        return now >= self._kill_at
