"""The task: a thin door from Celery to the supervisor.

Not here: what a worker does when it starts and stops (worker.main).
"""

from celery import Celery

from core import queue
from worker.supervisor import Supervisor


def register(celery: Celery, supervisor: Supervisor) -> None:
    """Tell Celery what to do with a message."""

    @celery.task(name=queue.RUN_JOB)
    def run_job(job_id: str) -> None:
        supervisor.run(job_id)
