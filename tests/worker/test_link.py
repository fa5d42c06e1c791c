"""The process's end of the pipes, over real pipes."""

import io
import os
import threading
from collections.abc import Iterator

import pytest

from core.errors import Interrupted
from core.schemas.events import Progress
from tests.worker.helpers import order, until
from worker.link import Link
from worker.protocol import STOP, Ready, decode, encode

PROGRESS = Progress(stage="training", fraction=0.5, message="step 1 of 2")


class Pipes:
    """A link and the worker's ends of its pipes."""

    def __init__(self) -> None:
        source, to_process = os.pipe()
        from_process, sink = os.pipe()
        self.input = os.fdopen(to_process, "wb", buffering=0)
        self.output = os.fdopen(from_process, "rb")
        self.gone = threading.Event()
        self._ends: tuple[io.IOBase, ...] = (source_file := os.fdopen(source, "rb"), sink_file := os.fdopen(sink, "wb"))
        self.link = Link(source_file, sink_file, worker_gone=self.gone.set)

    def close(self) -> None:
        """Close all ends."""
        self.input.close()
        assert self.gone.wait(5)
        for end in (self.output, *self._ends):
            end.close()


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    pipes = Pipes()
    yield pipes
    pipes.close()


def test_the_order_comes_and_words_go(pipes: Pipes) -> None:
    pipes.input.write(encode(order()))
    assert pipes.link.order() == order()
    pipes.link.send(Ready())
    pipes.link.emit(PROGRESS)
    assert [decode(pipes.output.readline()) for _line in range(2)] == [Ready(), PROGRESS]


def test_stop_is_heard_at_the_next_event_and_at_each_after(pipes: Pipes) -> None:
    pipes.input.write(encode(order()) + STOP)
    pipes.link.order()
    until(pipes.link._stop.is_set, "stop is heard")
    for _event in range(2):
        with pytest.raises(Interrupted):
            pipes.link.emit(PROGRESS)
    assert decode(pipes.output.readline()) == PROGRESS


def test_other_lines_are_no_stop(pipes: Pipes) -> None:
    pipes.input.write(encode(order()) + b"stop it\n\n")
    pipes.link.order()
    pipes.link.emit(PROGRESS)


@pytest.mark.parametrize("said", [b"", encode(order()), encode(order()) + STOP])
def test_a_worker_that_goes_is_noticed_whatever_it_said(pipes: Pipes, said: bytes) -> None:
    pipes.input.write(said)
    assert not pipes.gone.is_set()
    pipes.input.close()
    assert pipes.gone.wait(5)
