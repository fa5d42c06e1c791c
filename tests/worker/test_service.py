"""Real Celery workers on a real broker: started, killed with -9, frozen, asked to stop; the job is done once."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from celery import Celery
from sqlalchemy import text

from core import queue
from core.config import Settings
from core.db.session import transaction
from core.errors import Unavailable
from tests.worker.helpers import ROOT, CeleryWorker, Service, StartWorker, alive, until
from worker.service import create

pytestmark = pytest.mark.slow

BUSY = (
    "select count(*) from pg_stat_activity where datname = current_database() and pid != pg_backend_pid()"
    " and state != 'idle'"
)


@pytest.fixture
def celery(redis_url: str) -> Iterator[Celery]:
    app = queue.app(redis_url)
    yield app
    app.close()


def test_a_message_runs_a_job_once(celery: Celery, service: Service, start_worker: StartWorker) -> None:
    worker = start_worker()
    job_id = service.order("wait")
    for _message in range(3):
        queue.send(celery, job_id)
    service.pid()
    service.release()
    until(lambda: service.status(job_id) == "succeeded", "done")
    until(lambda: queue.depth(celery) == 0, "every message is looked at")
    worker.terminate()
    assert worker.process.returncode == 0
    assert service.job(job_id).attempt == 1
    assert service.statuses(job_id) == ["running", "succeeded"]
    assert len(service.artifacts(job_id)) == 1
    lines = worker.log.read_text().splitlines()
    assert any(f"{job_id}#1: claimed" in line for line in lines)


def test_the_next_job_follows_at_once(celery: Celery, service: Service, start_worker: StartWorker) -> None:
    start_worker(SECURETUNE_SWEEP_SECONDS="120")
    ids = [service.order("finish") for _job in range(3)]
    for job_id in ids:
        queue.send(celery, job_id)
    until(lambda: all(service.status(job_id) == "succeeded" for job_id in ids), "all are done", seconds=60)


def test_old_messages_do_not_hold_up_a_job(celery: Celery, service: Service, start_worker: StartWorker) -> None:
    """A second for each, which is what Celery takes between two, would be too long."""
    start_worker(SECURETUNE_SWEEP_SECONDS="120")
    for number in range(40):
        queue.send(celery, f"job_{number:024d}")
    queue.send(celery, service.order("wait"))
    service.pid(seconds=30)


def test_a_lost_message_is_sent_again(service: Service, start_worker: StartWorker) -> None:
    start_worker()
    job_id = service.order("finish")
    until(lambda: service.status(job_id) == "succeeded", "the sweep finds it")


def test_a_killed_worker_takes_its_process_along_and_another_goes_on(
    celery: Celery, service: Service, start_worker: StartWorker
) -> None:
    first = start_worker("first")
    job_id = service.order("wait", "finish")
    queue.send(celery, job_id)
    pid = service.pid()
    first.kill()
    until(lambda: not alive(pid), "the training process ends itself", seconds=10)
    assert service.status(job_id) == "running"
    start_worker("second")
    until(lambda: service.status(job_id) == "succeeded", "done by another")
    job = service.job(job_id)
    assert (job.attempt, job.failures) == (2, 1)
    assert service.statuses(job_id) == ["running", "running", "succeeded"]
    assert [artifact.key for artifact in service.artifacts(job_id)] == [f"jobs/{job_id}/2/adapter.bin"]


def test_a_worker_told_to_stop_gives_its_job_to_another(
    celery: Celery, service: Service, start_worker: StartWorker
) -> None:
    first = start_worker("first", SECURETUNE_SWEEP_SECONDS="60")
    job_id = service.order("wait", "finish")
    queue.send(celery, job_id)
    pid = service.pid()
    start_worker("second", SECURETUNE_SWEEP_SECONDS="60")
    first.terminate(seconds=6)
    assert first.process.returncode == 0
    assert not alive(pid)
    until(lambda: service.status(job_id) == "succeeded", "done by the other, without a sweep")
    job = service.job(job_id)
    assert (job.attempt, job.failures) == (2, 0)
    assert service.statuses(job_id) == ["running", "interrupted", "running", "succeeded"]


def freeze(worker: CeleryWorker, service: Service) -> None:
    """Stop a worker between two transactions: inside one it would keep its rows until the server loses patience."""

    def between() -> bool:
        worker.process.send_signal(signal.SIGSTOP)
        with transaction(service.sessions) as session:
            if session.scalar(text(BUSY)) == 0:
                return True
        worker.process.send_signal(signal.SIGCONT)
        return False

    until(between, "frozen")


def test_a_frozen_worker_that_comes_back_writes_nothing(
    celery: Celery, service: Service, start_worker: StartWorker
) -> None:
    late = start_worker("late")
    job_id = service.order("wait", "wait")
    queue.send(celery, job_id)
    pid = service.pid()
    freeze(late, service)
    start_worker("prompt")
    service.pid(2)
    late.process.send_signal(signal.SIGCONT)
    until(lambda: late.says("Nothing else is written"), "the late worker lets go")
    until(lambda: not alive(pid), "its process is ended")
    service.release()
    until(lambda: service.status(job_id) == "succeeded", "done by the other")
    assert service.statuses(job_id) == ["running", "running", "succeeded"]
    assert [artifact.key for artifact in service.artifacts(job_id)] == [f"jobs/{job_id}/2/adapter.bin"]


def test_a_cancel_reaches_a_worker(celery: Celery, service: Service, start_worker: StartWorker) -> None:
    start_worker()
    job_id = service.order("wait")
    queue.send(celery, job_id)
    service.pid()
    service.cancel(job_id)
    until(lambda: service.status(job_id) == "cancelled", "cancelled", seconds=5)


def test_a_cancel_of_a_job_whose_worker_is_dead_is_done_by_the_sweep(
    celery: Celery, service: Service, start_worker: StartWorker
) -> None:
    first = start_worker("first")
    job_id = service.order("wait")
    queue.send(celery, job_id)
    service.pid()
    first.kill()
    service.cancel(job_id)
    start_worker("second")
    until(lambda: service.status(job_id) == "cancelled", "cancelled")
    assert service.statuses(job_id)[-1] == "cancelled"


def test_a_worker_says_what_it_needs() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    said = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "worker.main", "worker"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode != 0
    assert "DATABASE_URL is not set" in said.stderr
    assert "Traceback" not in said.stderr
    with pytest.raises(Unavailable, match="REDIS_URL is not set"):
        create(Settings.model_validate({"database_url": "postgresql://x@/x", "redis_url": ""}))
