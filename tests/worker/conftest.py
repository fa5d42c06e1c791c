"""Fixtures of the worker's tests: short leases, a supervisor in this process, real Celery workers.

Not here: the servers (tests/conftest.py), what the fixtures hand out (tests/worker/helpers.py).
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import queue
from core.config import Settings
from core.db.session import Sessions, dispose
from core.db.session import sessions as make_sessions
from tests.worker.helpers import CeleryWorker, Desk, Service, StartWorker


@pytest.fixture
def sessions(database_url: str) -> Iterator[Sessions]:
    factory = make_sessions(database_url)
    yield factory
    dispose(factory)


@pytest.fixture
def service(sessions: Sessions, tmp_path: Path) -> Service:
    return Service(sessions, tmp_path)


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Short leases and quick beats."""
    return Settings.model_validate(
        {
            "database_url": database_url,
            "state": tmp_path,
            "lease_seconds": 2,
            "heartbeat_seconds": 0.1,
            "sweep_seconds": 0.2,
            "cancel_grace_seconds": 0.5,
        }
    )


@pytest.fixture
def desk(settings: Settings, sessions: Sessions) -> Iterator[Desk]:
    desk = Desk(settings, sessions)
    yield desk
    desk.pool.close()


@pytest.fixture
def start_worker(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[StartWorker]:
    """Starts workers; what still runs at the end is killed. They find no message of an earlier test: only wake-ups of
    jobs that nobody waits for are thrown away."""
    with queue.app(redis_url) as celery:
        celery.control.purge()
    started: list[CeleryWorker] = []

    def start(name: str = "worker", *, ready: bool = True, **more: str) -> CeleryWorker:
        urls = {"database_url": database_url, "redis_url": redis_url} | {
            key: more.pop(key) for key in ("database_url", "redis_url") if key in more
        }
        worker = CeleryWorker(**urls, state=tmp_path, name=name, **more)
        started.append(worker)
        return worker.ready() if ready else worker

    yield start
    for worker in started:
        worker.process.send_signal(signal.SIGCONT)
        worker.kill()
