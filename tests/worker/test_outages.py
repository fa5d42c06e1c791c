"""PostgreSQL and the broker stopped and started again in the middle: the job goes on, and is done once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from core import queue
from core.db import migrate
from core.db.session import dispose
from core.db.session import sessions as make_sessions
from securetune.local.processes import stop_together
from securetune.local.servers import PostgresServer, ValkeyServer
from tests.worker.helpers import Service, StartWorker, alive, until


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
def celery(valkey: ValkeyServer) -> Iterator[Celery]:
    app = queue.app(valkey.url)
    yield app
    app.close()


def test_the_broker_goes_and_comes_back(
    valkey: ValkeyServer, celery: Celery, service: Service, start_worker: StartWorker
) -> None:
    worker = start_worker(redis_url=valkey.url)
    first = service.order("wait")
    queue.send(celery, first)
    pid = service.pid()
    stop_together([valkey])
    second = service.order("finish")
    until(lambda: worker.says("sweeping is suspended"), "the worker notices")
    assert alive(pid)
    service.release()
    until(lambda: service.status(first) == "succeeded", "the job is done without a broker")
    valkey.launch()
    valkey.await_ready()
    until(lambda: service.status(second) == "succeeded", "the worker takes jobs again")
    assert service.job(first).attempt == 1
    log = worker.log.read_text()
    assert log.count("sweeping is suspended") == 1
    assert log.count("sweeping resumes") == 1


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[PostgresServer]:
    with PostgresServer(tmp_path / "postgres", durable=False) as server:
        migrate.upgrade(server.url)
        yield server


@pytest.fixture
def own_service(postgres: PostgresServer, tmp_path: Path) -> Iterator[Service]:
    """The service on a database that may be stopped."""
    factory = make_sessions(postgres.url)
    yield Service(factory, tmp_path)
    dispose(factory)


def test_the_database_goes_and_comes_back(
    postgres: PostgresServer, valkey: ValkeyServer, celery: Celery, own_service: Service, start_worker: StartWorker
) -> None:
    worker = start_worker(database_url=postgres.url, redis_url=valkey.url)
    job_id = own_service.order("wait")
    queue.send(celery, job_id)
    pid = own_service.pid()
    until(lambda: own_service.job(job_id).progress, "progress")
    stop_together([postgres])
    until(lambda: worker.says("The process continues"), "the worker notices")
    own_service.release()
    until(lambda: worker.says("ended: succeeded"), "the process ends while the database is away")
    assert not alive(pid)
    until(lambda: worker.says("not recorded yet"), "the worker waits")
    postgres.launch()
    postgres.await_ready()
    until(lambda: own_service.status(job_id) == "succeeded", "recorded when it is back")
    job = own_service.job(job_id)
    assert (job.attempt, job.failures) == (1, 0)
    assert [event.data["step"] for event in own_service.events(job_id) if event.type == "metrics"] == [1, 2, 3]
    assert own_service.statuses(job_id) == ["running", "succeeded"]
    assert len(own_service.artifacts(job_id)) == 1
    assert worker.log.read_text().count("not recorded yet") == 1
    assert "Traceback" not in worker.log.read_text()
    worker.terminate()


def test_a_worker_that_starts_before_its_servers_waits_for_them(
    postgres: PostgresServer, valkey: ValkeyServer, own_service: Service, start_worker: StartWorker
) -> None:
    job_id = own_service.order("finish")
    stop_together([postgres, valkey])
    worker = start_worker(ready=False, database_url=postgres.url, redis_url=valkey.url)
    until(lambda: worker.says("Trying again"), "it looks for the broker")
    valkey.launch()
    valkey.await_ready()
    until(lambda: worker.says("sweeping is suspended"), "it looks for the database")
    postgres.launch()
    postgres.await_ready()
    until(lambda: own_service.status(job_id) == "succeeded", "it works")
    assert own_service.job(job_id).attempt == 1
    assert "Traceback" not in worker.log.read_text()
