"""Queries on the files of a finished job. The only way to a file that the gate guards leads through the gate.

Not here: the bytes of a file (core.storage), the decision (core.gate).
"""

from collections.abc import Iterable, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.db import gate, jobs
from core.db.models import Artifact
from core.errors import Conflict, NotFound
from core.schemas.results import StoredFile


def put(session: Session, job_id: str, files: Iterable[StoredFile]) -> None:
    """Record the files of a finished job."""
    session.add_all(Artifact(job_id=job_id, **file.model_dump()) for file in files)


def of_job(session: Session, job_id: str) -> Sequence[Artifact]:
    """A job's files by name, guarded ones included; empty until it has succeeded."""
    return session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.name)).all()


def released(session: Session, job_id: str, name: str) -> Artifact:
    """One file of a job, to be downloaded.

    Raises:
        NotFound: the job does not exist, or has no such file (code `artifact_not_found`).
        Conflict: code `job_not_finished`, `job_failed` or `job_cancelled`; the job has no files.
        Withheld: the gate guards the file and has not released it.
    """
    job = jobs.get(session, job_id)
    if job.status != "succeeded":
        ended = job.status in ("failed", "cancelled")
        code = f"job_{job.status}" if ended else "job_not_finished"
        why = "it left no files" if ended else "its files are available once it has succeeded"
        raise Conflict(f"Job {job_id} is {job.status}: {why}.", code=code)
    row = session.get(Artifact, (job_id, name))
    if row is None:
        raise NotFound(f"Job {job_id} has no file {name!r}.", code="artifact_not_found", param="name")
    if row.gated:
        gate.check_released(session, job)
    return row
