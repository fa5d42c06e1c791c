"""Turns SIGINT, SIGTERM, SIGHUP and SIGCHLD into events to wait for, so that no handler interrupts other code.

Not here: how the events are handled (securetune.local.supervisor).
"""

import select
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import FrameType
from typing import Self

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequested(Exception):
    """The user has requested a stop, for example with Ctrl-C."""


class Signals:
    """Context manager that counts stop signals and wakes `wait`; main thread only. It restores the handlers on exit."""

    def __init__(self) -> None:
        self.stops = 0
        """Number of stop signals received."""
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        self._reader, writer = socket.socketpair()
        for end in (self._reader, writer):
            self._undo.enter_context(end)
            end.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._undo.callback(signal.set_wakeup_fd, before)
        for number in _STOPS:
            # nohup ignores SIGHUP, and that stays. A shell also makes background jobs ignore SIGINT, but a SIGINT that
            # somebody sends to this process is meant to end it.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._undo.callback(signal.signal, number, signal.signal(number, self._count_stop))
        # Python writes a signal to the wakeup socket only if the signal has a Python handler.
        self._undo.callback(signal.signal, signal.SIGCHLD, signal.signal(signal.SIGCHLD, lambda *_: None))
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def _count_stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the handler's signature
        self.stops += 1

    def wait(self, seconds: float | None) -> None:
        """Wait until a signal arrives or the time is over; None waits without a limit."""
        select.select((self._reader,), (), (), None if seconds is None else max(seconds, 0))
        with suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass

    def pause(self, seconds: float) -> None:
        """Wait like `wait`, but raise once a stop has been requested.

        Raises:
            StopRequested: a stop was requested before or during the wait.
        """
        if not self.stops:
            self.wait(seconds)
        if self.stops:
            raise StopRequested

    def watch_repeated_stop(self) -> Callable[[], bool]:
        """Return a function that tells whether another stop signal has arrived since this call."""
        before = max(self.stops, 1)
        return lambda: self.stops > before
