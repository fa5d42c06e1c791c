"""Ctrl-C, SIGTERM and the death of children, as things to wait for instead of interruptions anywhere.

Not here: what to do about them (securetune.local.supervisor).
"""

import select
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType, TracebackType
from typing import Self

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequested(Exception):
    """The user wants us to end."""


class Signals:
    """While entered (main thread only), signals are noted and wake `wait` up. Handlers are put back at the end."""

    def __init__(self) -> None:
        self.stops = 0
        """How often the user has asked us to end."""
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        self._reader, writer = socket.socketpair()
        for end in (self._reader, writer):
            self._undo.enter_context(end)
            end.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._undo.callback(signal.set_wakeup_fd, before)
        for number in _STOPS:
            # What nohup has set is for us to leave. That a shell has its background jobs ignore Ctrl-C is not: whoever
            # sends SIGINT to this process wants it to end.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._undo.callback(signal.signal, number, signal.signal(number, self._note))
        # A handler of Python's must be there, or the signal is not written to the socket.
        self._undo.callback(signal.signal, signal.SIGCHLD, signal.signal(signal.SIGCHLD, _nothing))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the handler's signature
        self.stops += 1

    def wait(self, seconds: float | None) -> None:
        """Wait until any signal arrives, or the time is over. None waits for a signal alone."""
        select.select((self._reader,), (), (), None if seconds is None else max(seconds, 0))
        try:
            while self._reader.recv(4096):
                pass
        except BlockingIOError:
            return

    def pause(self, seconds: float) -> None:
        """Wait as `wait` does, but break off with an exception once the user has asked us to end.

        Raises:
            StopRequested: as soon as that is so.
        """
        if not self.stops:
            self.wait(seconds)
        if self.stops:
            raise StopRequested

    def hurry(self) -> Callable[[], bool]:
        """A question to ask while stopping: has the user asked again since now?"""
        before = max(self.stops, 1)
        return lambda: self.stops > before


def _nothing(number: int, frame: FrameType | None) -> None:
    """Only there to be called."""
