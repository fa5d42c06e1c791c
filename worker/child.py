"""The worker's end of the pipes to a training process: starting it, sending an order, reading messages, ending it.

The process handles untrusted data and models, so it gets its own session and environment (core.processes). Not here:
the messages (worker.protocol), when to end a process (worker.watch).
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Queue
from typing import IO

from core.processes import ROOT, child_environment
from core.schemas.events import Progress
from worker.logs import AttemptLog
from worker.protocol import LINE_LIMIT, STOP, Message, Order, ProtocolError, decode, encode

TRAINING = (sys.executable, "-m", "worker.process")
"""The command of the real training process."""

_QUEUED_MESSAGES = 256
_CLOSE_SECONDS = 2.0
_JUDGE_KEYS = "SECURETUNE_JUDGE_"


@dataclass(frozen=True)
class Exited:
    """The process has ended without a final message."""

    status: int
    """Exit status; the negative number of the signal that killed it."""


class TrainingProcess:
    """A process for one attempt, started before it has an order. Three threads read its pipes and wait for its exit."""

    def __init__(self, command: Sequence[str] = TRAINING) -> None:
        self.log = AttemptLog()
        self.progress: Progress | None = None
        self._messages: Queue[Message | ProtocolError | Exited] = Queue(_QUEUED_MESSAGES)
        self._gone: Exited | None = None
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=child_environment(os.environ, _JUDGE_KEYS),
            cwd=ROOT,
            start_new_session=True,
        )
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        assert stdin is not None and stdout is not None and stderr is not None  # noqa: S101, PT018 - they are pipes
        self._stdin = stdin
        self._threads = [
            threading.Thread(target=work, name=f"process-{self.pid}", daemon=True)
            for work in (lambda: self._read_messages(stdout), lambda: self._copy_log(stderr), self._wait_for_exit)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        """Id of the process and of its process group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def begin(self, order: Order) -> None:
        """Send the order. If it exceeds the buffer of the pipe, this waits until the process is ready."""
        self._write(encode(order))

    def request_stop(self) -> None:
        """Request that the process stops at its next step."""
        self._write(STOP)

    def next_message(self, timeout: float) -> Message | Exited | None:
        """The next message; None after `timeout` seconds without one. Progress messages only update `progress`.

        The queue is bounded: if it is not read, the process waits, and no message is lost.

        Raises:
            ProtocolError: the process sent an invalid message.
        """
        if self._gone is not None:
            return self._gone
        try:
            message = self._messages.get(timeout=timeout)
        except Empty:
            return None
        if isinstance(message, ProtocolError):
            raise message
        if isinstance(message, Exited):
            self._gone = message
        return message

    def terminate(self) -> None:
        """Send SIGTERM to the process and everything it has started."""
        self._signal(signal.SIGTERM)

    def close(self) -> None:
        """Kill the process and everything it has started, and complete its log. Idempotent."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        with suppress(OSError):
            self._stdin.close()
        give_up = time.monotonic() + _CLOSE_SECONDS
        while self._gone is None:  # unblocks the thread that waits for space in the queue
            with suppress(ProtocolError):
                self.next_message(0.1)
            if time.monotonic() > give_up:  # a process has left the group and holds the pipe
                self._gone = Exited(self._process.returncode)
        for thread in self._threads:
            thread.join(max(0.0, give_up - time.monotonic()))

    def _write(self, data: bytes) -> None:
        with suppress(BrokenPipeError):  # it has just died: `next_message` returns Exited
            self._stdin.write(data)
            self._stdin.flush()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _read_messages(self, pipe: IO[bytes]) -> None:
        with pipe:
            while line := pipe.readline(LINE_LIMIT):
                try:
                    message = decode(line)
                except ProtocolError as error:
                    self._messages.put(error)
                    self._signal(signal.SIGKILL)
                    continue
                if isinstance(message, Progress):
                    self.progress = message
                else:
                    self._messages.put(message)
        self._messages.put(Exited(self._process.wait()))

    def _copy_log(self, pipe: IO[bytes]) -> None:
        with pipe:
            while data := os.read(pipe.fileno(), 65536):
                self.log.feed(data)

    def _wait_for_exit(self) -> None:
        """Kill what a dead process leaves running, which would hold its pipes and its GPU memory."""
        self._process.wait()
        self._signal(signal.SIGKILL)
