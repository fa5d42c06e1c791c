"""PostgreSQL and the broker stopped and started again in the middle: the job goes on, and is done once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from core import queue
from core.db import migrate
from core.db.session import dispose
from core.db.session import sessions as make_sessions
from local.processes import stop_together
from local.servers import PostgresServer, ValkeyServer
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
    until(lambda: worker.says("sweeping stops"), "the worker notices")
    assert alive(pid)
    service.release()
    until(lambda: service.status(first) == "succeeded", "the job is done without a broker")
    valkey.launch()
    valkey.await_ready()
    until(lambda: service.status(second) == "succeeded", "the worker takes jobs again")
    assert service.job(first).attempt == 1
    log = worker.log.read_text()
    assert log.count("sweeping stops") == 1
    assert log.count("sweeping again") == 1


def test_the_database_goes_and_comes_back(tmp_path: Path, redis_url: str, start_worker: StartWorker) -> None:
    with PostgresServer(tmp_path / "postgres", durable=False) as postgres, ValkeyServer(tmp_path / "valkey") as valkey:
        migrate.upgrade(postgres.url)
        factory = make_sessions(postgres.url)
        service = Service(factory, tmp_path)
        celery = queue.app(valkey.url)
        worker = start_worker(database_url=postgres.url, redis_url=valkey.url)
        job_id = service.order("wait")
        queue.send(celery, job_id)
        pid = service.pid()
        until(lambda: service.job(job_id).progress, "progress")
        stop_together([postgres])
        until(lambda: worker.says("The process goes on"), "the worker notices")
        service.release()
        until(lambda: worker.says("ended: succeeded"), "the process ends while the database is away")
        assert not alive(pid)
        until(lambda: worker.says("not recorded yet"), "the worker waits")
        postgres.launch()
        postgres.await_ready()
        until(lambda: service.status(job_id) == "succeeded", "recorded when it is back")
        job = service.job(job_id)
        assert (job.attempt, job.failures) == (1, 0)
        assert [event.data["step"] for event in service.events(job_id) if event.type == "metrics"] == [1, 2, 3]
        assert service.statuses(job_id) == ["running", "succeeded"]
        assert len(service.artifacts(job_id)) == 1
        assert worker.log.read_text().count("not recorded yet") == 1
        assert "Traceback" not in worker.log.read_text()
        celery.close()
        worker.terminate()
        dispose(factory)


def test_a_worker_that_starts_before_its_servers_waits_for_them(tmp_path: Path, start_worker: StartWorker) -> None:
    with PostgresServer(tmp_path / "postgres", durable=False) as postgres, ValkeyServer(tmp_path / "valkey") as valkey:
        migrate.upgrade(postgres.url)
        factory = make_sessions(postgres.url)
        service = Service(factory, tmp_path)
        job_id = service.order("finish")
        stop_together([postgres, valkey])
        worker = start_worker(ready=False, database_url=postgres.url, redis_url=valkey.url)
        until(lambda: worker.says("Trying again"), "it looks for the broker")
        valkey.launch()
        valkey.await_ready()
        until(lambda: worker.says("sweeping stops"), "it looks for the database")
        postgres.launch()
        postgres.await_ready()
        until(lambda: service.status(job_id) == "succeeded", "it works")
        assert service.job(job_id).attempt == 1
        assert "Traceback" not in worker.log.read_text()
        dispose(factory)
