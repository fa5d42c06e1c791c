"""The worker's end of the pipes: environment, logs, back-pressure, and an end that leaves nobody behind."""

import signal
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.schemas.events import Metrics, Progress
from tests.worker.helpers import SCRIPTED, alive, order, until
from worker.child import Exited, TrainingProcess
from worker.protocol import Message, ProtocolError, Ready

METRICS = b'{"type":"metrics","run":"a","step":1,"total_steps":1,"loss":1,"learning_rate":1}'


@contextmanager
def program(text: str) -> Generator[TrainingProcess]:
    """A process that runs this Python text."""
    with started((sys.executable, "-c", text)) as process:
        yield process


@contextmanager
def started(command: Sequence[str]) -> Generator[TrainingProcess]:
    """A process that is gone at the end."""
    process = TrainingProcess(command)
    try:
        yield process
    finally:
        process.close()


def words(process: TrainingProcess) -> list[Message | Exited]:
    """Everything that it says until it is gone."""
    said: list[Message | Exited] = []
    while not (said and isinstance(said[-1], Exited)):
        word = process.next_message(10)
        assert word is not None
        said.append(word)
    return said


def test_a_process_is_warm_then_works_then_is_gone(tmp_path: Path) -> None:
    with started(SCRIPTED) as process:
        assert process.next_message(10) == Ready()
        assert process.next_message(0.01) is None
        process.begin(order(tmp_path))
        said = words(process)
        assert said[-2:][0].__class__.__name__ == "Succeeded"
        assert said[-1] == Exited(0)
        assert process.next_message(1) == Exited(0)
        assert process.progress == Progress(stage="training", run="ml_lr", fraction=1, message="step 3 of 3")


def test_a_death_is_told_with_its_signal() -> None:
    with program("import os; os.abort()") as process:
        assert words(process) == [Exited(-signal.SIGABRT)]


def test_what_it_wrote_last_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "attempt.log"
    with program("import sys; sys.stderr.write('early\\n'); input(); sys.stderr.write('late\\n')") as process:
        until(lambda: process.log.tail(1) == ["early"], "it writes")
        process.log.open(path)
        process.begin(order())
        words(process)
        until(lambda: process.log.tail(2) == ["early", "late"], "the end is kept")
    assert path.read_text() == "early\nlate\n"


def test_a_broken_protocol_ends_the_process() -> None:
    with program("import time; print('Loading...', flush=True); time.sleep(60)") as process:
        with pytest.raises(ProtocolError, match="Loading"):
            process.next_message(10)
        assert process.next_message(10) == Exited(-signal.SIGKILL)


def test_an_unread_process_waits_and_loses_nothing() -> None:
    count = 20_000
    text = f"import sys\nfor step in range({count}): sys.stdout.buffer.write({METRICS!r} + b'\\n')"
    with program(text) as process:
        until(process._messages.full, "the queue is full")
        assert process.alive
        said = words(process)
        assert sum(isinstance(word, Metrics) for word in said) == count
        assert said[-1] == Exited(0)


def test_a_process_that_waits_to_be_read_can_be_closed() -> None:
    before = threading.active_count()
    with program(f"while True: print({METRICS.decode()!r})") as process:
        until(process._messages.full, "the queue is full")
        process.close()
        process.close()
        assert not alive(process.pid)
        assert process.next_message(0) == Exited(-signal.SIGKILL)
    until(lambda: threading.active_count() <= before, "its threads are gone")


def test_what_a_dead_process_has_started_is_ended_and_holds_nothing_up() -> None:
    text = """
import os, time
child = os.fork()
if child == 0:
    time.sleep(1000)
os.write(2, b"%d\\n" % child)
os.abort()
"""
    with program(text) as process:
        began = time.monotonic()
        assert words(process) == [Exited(-signal.SIGABRT)]
        assert time.monotonic() - began < 5
        process.close()
        (line,) = process.log.tail(1)
        until(lambda: not alive(int(line)), "its child is gone", seconds=10)


def test_talking_to_a_dead_process_is_no_error() -> None:
    with program("pass") as process:
        words(process)
        process.begin(order())
        process.request_stop()
        process.terminate()


def test_a_process_ends_when_its_worker_is_gone() -> None:
    text = """
import os, signal, sys
from worker.child import TrainingProcess
process = TrainingProcess((sys.executable, "-m", "tests.worker.scripted"))
process.next_message(10)
os.write(2, b"%d\\n" % process.pid)
os.kill(os.getpid(), signal.SIGKILL)
"""
    with program(text) as worker:
        words(worker)
        worker.close()
        (line,) = worker.log.tail(1)
    until(lambda: not alive(int(line)), "the process ends itself", seconds=10)
