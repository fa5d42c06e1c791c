"""Changes to a placed job: cancelling it and overriding the gate; and the rights that keys need.

Not here: stopping a process (worker.watch), the decision of the gate (core.gate).
"""

from core.db import gate, jobs, records
from core.db.models import Job
from core.db.session import Session
from core.errors import Forbidden
from core.schemas.events import GateOverridden, StatusChanged
from core.schemas.keys import Caller, Right


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


def override(session: Session, caller: Caller, job_id: str, *, reason: str) -> Job:
    """Release what the gate withholds; who did it, when and why stays on record.

    Raises:
        Forbidden: code `missing_right`.
        NotFound: the job does not exist.
        Conflict: code `nothing_to_override`.
    """
    check_right(caller, "override")
    job = gate.override(session, job_id, reason=reason, by=caller)
    event = GateOverridden(key_id=caller.key_id, key_name=caller.name, reason=reason)
    records.add_event(session, job_id, job.attempt, event)
    return job


def check_right(caller: Caller, right: Right) -> None:
    """Check that the caller's key has a right.

    Raises:
        Forbidden: code `missing_right`.
    """
    if right not in caller.rights:
        raise Forbidden(
            f"The API key {caller.name!r} does not have the right {right!r}. Ask an administrator to create one: "
            f"securetune key create NAME --project {caller.project} --right {right}",
            code="missing_right",
        )
