"""Cancelling a job. Not here: stopping its process (worker.watch)."""

from core.db import jobs, records
from core.db.models import Job
from core.db.session import Session
from core.schemas.events import StatusChanged


def cancel(session: Session, job_id: str) -> Job:
    """Cancel a waiting job at once; a running one is stopped by its worker within seconds. Idempotent.

    Raises:
        NotFound: the job does not exist.
        Conflict: code `job_ended`; the job has already succeeded or failed.
    """
    first = jobs.get(session, job_id, lock=True).cancel_requested_at is None
    job = jobs.request_cancel(session, job_id)
    if first:
        event = StatusChanged(status="cancelling", message="The worker is stopping the job.")
        if job.status == "cancelled":
            event = StatusChanged(status="cancelled", message="The job was cancelled before a worker started it.")
        records.add_event(session, job_id, job.attempt, event)
    return job
