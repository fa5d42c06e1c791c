"""The Celery task that runs a job. Not here: what a worker does when it starts and stops (worker.service)."""

from celery import Celery

from core import queue
from worker.supervisor import Supervisor


def register(celery: Celery, supervisor: Supervisor) -> None:
    """Register the task."""

    @celery.task(name=queue.RUN_JOB)
    def run_job(job_id: str) -> None:
        supervisor.run(job_id)
