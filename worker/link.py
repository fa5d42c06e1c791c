"""The training process's end of the pipes to its worker.

Covers: taking the order, sending events, hearing `stop`, and ending when the worker is gone.
Not here: what is done with the order (worker.attempt).
"""

import os
import signal
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import BinaryIO

from core.errors import Interrupted
from core.schemas.events import PipelineEvent
from worker.protocol import STOP, Order, Word, decode_order, encode


def end_group() -> None:
    """End this process and all that it has started, at once."""
    os.killpg(0, signal.SIGKILL)


class Link:
    """Listens from the moment it is made, in a thread of its own, so that even a long import can be ended."""

    def __init__(self, source: BinaryIO, sink: BinaryIO, *, worker_gone: Callable[[], None] = end_group) -> None:
        self._source = source
        self._sink = sink
        self._worker_gone = worker_gone
        self._orders: SimpleQueue[bytes] = SimpleQueue()
        self._stop = threading.Event()
        threading.Thread(target=self._listen, name="link", daemon=True).start()

    @classmethod
    def standard(cls) -> "Link":
        """Over this process's own stdin and stdout. From now on, whatever else is printed goes to stderr."""
        source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        return cls(source, sink)

    def order(self) -> Order:
        """Wait for the order.

        Raises:
            ProtocolError: what came is none.
        """
        return decode_order(self._orders.get())

    def say(self, word: Word) -> None:
        """Send one line."""
        self._sink.write(encode(word))
        self._sink.flush()

    def emit(self, event: PipelineEvent) -> None:
        """Send an event; this is where a running job notices that it shall stop.

        Raises:
            Interrupted: the worker said `stop`.
        """
        self.say(event)
        if self._stop.is_set():
            raise Interrupted("The job was asked to stop.")

    def _listen(self) -> None:
        if line := self._source.readline():
            self._orders.put(line)
        for line in self._source:
            if line == STOP:
                self._stop.set()
        self._worker_gone()
