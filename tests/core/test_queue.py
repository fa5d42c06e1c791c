"""Sending fails fast, and what is sent waits to be counted."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from core import queue
from core.errors import Unavailable
from securetune.local.processes import stop_together
from securetune.local.servers import ValkeyServer


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A broker of this test's own, to count its messages and to stop it."""
    with ValkeyServer(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
def celery(valkey: ValkeyServer) -> Iterator[Celery]:
    app = queue.app(valkey.url)
    yield app
    app.close()


def test_messages_wait_and_are_counted(celery: Celery) -> None:
    assert queue.depth(celery) == 0
    queue.send(celery, "job_a")
    queue.send(celery, "job_b")
    assert queue.depth(celery) == 2


def test_a_message_carries_the_id_only(celery: Celery) -> None:
    queue.send(celery, "job_a")
    with celery.connection_for_read() as connection, connection.SimpleQueue(queue.QUEUE) as waiting:
        message = waiting.get(timeout=2)
        message.ack()
    assert message.headers["task"] == queue.RUN_JOB
    assert message.payload[:2] == [["job_a"], {}]


def test_a_broker_that_is_gone_is_said_so_at_once_and_found_again(celery: Celery, valkey: ValkeyServer) -> None:
    queue.send(celery, "job_a")
    stop_together([valkey])
    for use in (lambda: queue.send(celery, "job_b"), lambda: queue.depth(celery)):
        began = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            use()
        assert caught.value.code == "broker_unavailable"
        assert time.monotonic() - began < 1
    valkey.launch()
    valkey.await_ready()
    queue.send(celery, "job_c")
    assert queue.depth(celery) >= 1


def test_a_broker_that_hangs_costs_a_few_seconds(celery: Celery, valkey: ValkeyServer) -> None:
    queue.send(celery, "job_a")
    pid = valkey.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            queue.send(celery, "job_b")
        assert time.monotonic() - began < 4
    finally:
        os.kill(pid, signal.SIGCONT)


def test_an_address_without_a_broker() -> None:
    app = queue.app("redis://127.0.0.1:1/0")
    with pytest.raises(Unavailable):
        queue.send(app, "job_a")
    app.close()
