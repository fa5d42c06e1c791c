"""Queries on decisions of the gate, and on overrides, which are added and never changed.

Not here: making the decision (core.gate).
"""

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.db import jobs
from core.db.models import GateOverride, Job
from core.errors import Conflict, Withheld
from core.schemas.gate import GateDecision, GateReason
from core.schemas.keys import Caller

_NOT_DECIDED = GateReason(
    code="not_decided",
    message="The job ran before the gate existed, so there is no decision about its adapter. Create the job again.",
)


def decision(job: Job) -> GateDecision | None:
    """The decision about a job; None if it has not succeeded, or trained nothing."""
    if job.gate is not None:
        return GateDecision.model_validate(job.gate)
    if job.status != "succeeded" or job.spec.get("kind") == "screen":
        return None
    return GateDecision(run="", outcome="undecided", reasons=(_NOT_DECIDED,), checks=(), policy_version=0)


def overrides(session: Session, *job_ids: str) -> dict[str, list[GateOverride]]:
    """Overrides of these jobs, oldest first, by job; jobs without overrides are missing."""
    found: dict[str, list[GateOverride]] = {}
    rows = session.scalars(select(GateOverride).where(GateOverride.job_id.in_(job_ids)).order_by(GateOverride.id))
    for row in rows:
        found.setdefault(row.job_id, []).append(row)
    return found


def is_released(session: Session, job: Job) -> bool:
    """Whether the gated files of a job may be downloaded: the gate released them, or somebody overrode it."""
    decided = decision(job)
    return decided is None or decided.outcome == "released" or bool(overrides(session, job.id))


def check_released(session: Session, job: Job) -> None:
    """Check that the gated files of a job may be downloaded.

    Raises:
        Withheld: code `adapter_quarantined` or `gate_undecided`, with the reasons.
    """
    decided = decision(job)
    if decided is None or is_released(session, job):
        return
    if decided.outcome == "quarantined":
        code = "adapter_quarantined"
        what = "is quarantined, because it does not meet the policy"
    else:
        code = "gate_undecided"
        what = "is withheld, because the evaluation is inconclusive. This does not mean that it is unsafe"
    reasons = " ".join(reason.message for reason in decided.reasons)
    raise Withheld(
        f"The model of job {job.id} {what}. {reasons} The report has every figure. A key with the right `override` can "
        f"release it: POST /jobs/{job.id}/gate/override.",
        code=code,
        reasons=decided.reasons,
    )


def override(session: Session, job_id: str, *, reason: str, by: Caller) -> Job:
    """Record an override, which releases what the gate withholds. Each call adds a record.

    Raises:
        NotFound: there is no job with this id.
        Conflict: code `nothing_to_override`.
    """
    job = jobs.get(session, job_id, lock=True)
    decided = decision(job)
    if decided is None or decided.outcome == "released":
        why = "there is no decision about it" if decided is None else "the gate has released its files"
        raise Conflict(f"There is nothing to override for job {job_id}: {why}.", code="nothing_to_override")
    session.add(GateOverride(job_id=job_id, outcome=decided.outcome, reason=reason, key_id=by.key_id, key_name=by.name))
    session.flush()
    return job
