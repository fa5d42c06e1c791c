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
    first = jobs.lock(session, job_id).cancel_requested_at is None
    job = jobs.request_cancel(session, job_id)
    if first:
        records.add_event(session, job_id, job.attempt, _event(at_once=job.status == "cancelled"))
    return job


def _event(*, at_once: bool) -> StatusChanged:
    if at_once:
        return StatusChanged(status="cancelled", message="The job was cancelled before a worker started it.")
    return StatusChanged(status="cancelling", message="The worker is stopping the job.")
