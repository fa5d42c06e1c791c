"""The training process's end of the pipes to its worker.

Covers: receiving the order, sending messages, stopping on request, and ending if the worker dies. Not here: carrying
out the order (worker.attempt).
"""

import os
import signal
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import BinaryIO

from core.errors import Interrupted
from core.schemas.events import PipelineEvent
from worker.protocol import STOP, Message, Order, decode_order, encode


def end_group() -> None:
    """Kill this process and everything it has started."""
    os.killpg(0, signal.SIGKILL)


class Link:
    """The connection to the worker. Its own thread listens from the start, so that even a long import can be ended."""

    def __init__(self, source: BinaryIO, sink: BinaryIO, *, worker_gone: Callable[[], None] = end_group) -> None:
        self._source = source
        self._sink = sink
        self._worker_gone = worker_gone
        self._orders: SimpleQueue[bytes] = SimpleQueue()
        self._stop = threading.Event()
        threading.Thread(target=self._listen, name="link", daemon=True).start()

    @classmethod
    def standard(cls) -> "Link":
        """A link over stdin and stdout of this process. From then on, everything printed goes to stderr."""
        source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        return cls(source, sink)

    def order(self) -> Order:
        """Wait for the order.

        Raises:
            ProtocolError: the line is not an order.
        """
        return decode_order(self._orders.get())

    def send(self, message: Message) -> None:
        """Send one message."""
        self._sink.write(encode(message))
        self._sink.flush()

    def emit(self, event: PipelineEvent) -> None:
        """Send an event. A running job notices here that it must stop.

        Raises:
            Interrupted: the worker requested to stop.
        """
        self.send(event)
        if self._stop.is_set():
            raise Interrupted("The worker requested to stop the job.")

    def _listen(self) -> None:
        if line := self._source.readline():
            self._orders.put(line)
        for line in self._source:
            if line == STOP:
                self._stop.set()
        self._worker_gone()
