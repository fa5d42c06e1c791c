"""Queries on jobs, from queued to a final status.

A worker owns a job while it holds the lease. Each of its writes names the number of its attempt, so a worker that was
taken for dead and comes back writes nothing (`LeaseLost`). All times are the database's.
Not here: events and scores (core.db.records), files (core.db.artifacts).
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import and_, case, func, or_, select, update
from sqlalchemy.orm import Session

from core.db.models import Job
from core.errors import Conflict, Interrupted, NotFound
from core.schemas.events import JobError, Progress
from core.schemas.gate import GateDecision
from core.schemas.job import JobOrder
from core.schemas.keys import DEFAULT_PROJECT
from core.schemas.policy import PolicyRef
from core.schemas.state import FINAL, Status

_SILENT = or_(Job.status == "queued", and_(Job.status == "running", Job.lease_expires_at < func.clock_timestamp()))
_DIED = case((Job.status == "running", 1), else_=0)


class LeaseLost(Interrupted):
    """Another worker owns the job, or it has ended: this worker must stop and write nothing."""

    code = "lease_lost"


@dataclass(frozen=True)
class Claim:
    """The right to work on a job until the lease expires."""

    job_id: str
    attempt: int


def add(session: Session, spec: JobOrder, *, project: str = DEFAULT_PROJECT, policy: PolicyRef | None = None) -> Job:
    """Add a queued job, with the policy that it will be judged by. Send its id to the workers after the commit."""
    job = Job(
        id=f"job_{secrets.token_hex(12)}",
        spec=spec.model_dump(mode="json"),
        project=project,
        policy=policy.model_dump(mode="json") if policy else None,
    )
    session.add(job)
    session.flush()
    session.refresh(job)
    return job


def get(session: Session, job_id: str, *, lock: bool = False) -> Job:
    """One job; with `lock` it stays locked until the end of the transaction.

    Raises:
        NotFound: there is no job with this id.
    """
    job = session.get(Job, job_id, with_for_update=lock, populate_existing=True)
    if job is None:
        raise NotFound(f"There is no job {job_id!r}.", param="job_id")
    return job


def newest_check(session: Session, model: str) -> Job | None:
    """The newest check of a base model that has succeeded, of any project; None if there is none."""
    return session.scalars(
        select(Job)
        .where(Job.spec["kind"].astext == "check", Job.spec["base_model"].astext == model, Job.status == "succeeded")
        .order_by(Job.finished_at.desc(), Job.id.desc())
        .limit(1)
    ).one_or_none()


def request_cancel(session: Session, job_id: str) -> Job:
    """Cancel a queued job; request that the worker stops a running one. Idempotent.

    Raises:
        NotFound: there is no job with this id.
        Conflict: code `job_ended`; the job has succeeded or failed.
    """
    job = get(session, job_id, lock=True)
    now = func.clock_timestamp()
    match job.status:
        case "queued":
            job.status, job.finished_at, job.cancel_requested_at = "cancelled", now, now
        case "running":
            job.cancel_requested_at = func.coalesce(Job.cancel_requested_at, now)
        case "cancelled":
            pass
        case ended:
            raise Conflict(f"Job {job_id} has already {ended}, so it cannot be cancelled.", code="job_ended")
    job.updated_at = now
    session.flush()
    session.refresh(job)
    return job


def claim(session: Session, job_id: str, *, owner: str, lease_seconds: float) -> Claim | None:
    """Claim a job that is queued, or whose lease has expired; None if it cannot be claimed.

    Claiming a job with an expired lease counts one failure, because its last worker died.
    """
    now = func.clock_timestamp()
    attempt = session.execute(
        update(Job)
        .where(Job.id == job_id, _SILENT, Job.cancel_requested_at.is_(None))
        .values(
            failures=Job.failures + _DIED,
            status="running",
            attempt=Job.attempt + 1,
            lease_owner=owner,
            lease_expires_at=now + timedelta(seconds=lease_seconds),
            started_at=func.coalesce(Job.started_at, now),
            updated_at=now,
        )
        .returning(Job.attempt)
    ).scalar_one_or_none()
    return None if attempt is None else Claim(job_id, attempt)


def fence(session: Session, claim: Claim) -> Job:
    """Lock the job for this transaction if the claim is still valid.

    Raises:
        LeaseLost: the claim is no longer valid.
    """
    job = session.scalars(
        select(Job)
        .where(Job.id == claim.job_id, Job.attempt == claim.attempt, Job.status == "running")
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()
    if job is None:
        raise LeaseLost(f"Attempt {claim.attempt} of {claim.job_id} is over: the job has another worker, or has ended.")
    return job


def heartbeat(session: Session, claim: Claim, *, lease_seconds: float, progress: Progress | None) -> bool:
    """Renew the lease and record progress; returns whether the user has requested to cancel the job.

    Raises:
        LeaseLost: the claim is no longer valid.
    """
    job = fence(session, claim)
    now = func.clock_timestamp()
    job.lease_expires_at = now + timedelta(seconds=lease_seconds)
    job.updated_at = now
    if progress is not None:
        job.progress = progress.model_dump()
    return job.cancel_requested_at is not None


def release(session: Session, claim: Claim, *, failed: bool, error: JobError | None = None) -> None:
    """Put a job back into the queue, because its process crashed (`failed`) or its worker shuts down.

    Raises:
        LeaseLost: the claim is no longer valid.
    """
    job = fence(session, claim)
    job.status, job.lease_owner, job.lease_expires_at = "queued", None, None
    job.failures += int(failed)
    job.error = error.model_dump() if error else job.error
    job.updated_at = func.clock_timestamp()


def finish(
    session: Session, claim: Claim, status: Status, error: JobError | None = None, *, gate: GateDecision | None = None
) -> None:
    """Give a job a final status; `gate` is the decision about what it trained.

    Raises:
        LeaseLost: the claim is no longer valid.
    """
    if status not in FINAL:
        raise ValueError(f"{status} is not a final status")
    job = fence(session, claim)
    job.gate = gate.model_dump(mode="json") if gate else None
    _end(job, status, error)


def _end(job: Job, status: Status, error: JobError | None) -> None:
    now = func.clock_timestamp()
    job.status, job.finished_at, job.updated_at = status, now, now
    job.error = error.model_dump() if error else None
    job.lease_owner = job.lease_expires_at = None


def claimable(session: Session, *, limit: int = 100) -> Sequence[str]:
    """Ids of jobs that a worker can claim, oldest first."""
    return session.scalars(
        select(Job.id).where(Job.cancel_requested_at.is_(None), _SILENT).order_by(Job.created_at, Job.id).limit(limit)
    ).all()


def end_hopeless(session: Session, *, max_failures: int) -> Sequence[Job]:
    """End jobs that no worker will end: cancelled after their worker died, or interrupted too often. Returns them."""
    lost = Job.failures + _DIED >= max_failures
    jobs = session.scalars(
        select(Job)
        .where(_SILENT, or_(Job.cancel_requested_at.is_not(None), lost))
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    ).all()
    for job in jobs:
        if job.cancel_requested_at is not None:
            _end(job, "cancelled", None)
        else:
            last = f" Last error: {job.error['message']}" if job.error else ""
            times = job.failures + (job.status == "running")
            message = f"The job was interrupted by a crash {times} times.{last}"
            _end(job, "failed", JobError(code="interrupted_too_often", message=message))
    session.flush()
    return jobs
