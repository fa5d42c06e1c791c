"""Queries on what the gate decided, and on overrides, which are added and never changed.

Not here: deciding (core.gate).
"""

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.db import jobs
from core.db.models import GateOverride, Job
from core.errors import Conflict, Withheld
from core.schemas.gate import GateDecision, GateReason
from core.schemas.keys import Caller

_NEVER_DECIDED = GateReason(
    code="not_decided",
    message="This job is from before the gate: nobody has decided about its adapter. Order it again.",
)


def decision(job: Job) -> GateDecision | None:
    """What the gate decided; None where there is nothing to decide about: no success yet, or nothing was trained."""
    if job.gate is not None:
        return GateDecision.model_validate(job.gate)
    if job.status != "succeeded" or job.spec.get("kind") == "screen":
        return None
    return GateDecision(run="", outcome="undecided", reasons=(_NEVER_DECIDED,), checks=(), policy_version=0)


def overrides(session: Session, *job_ids: str) -> dict[str, list[GateOverride]]:
    """Who overrode the gate, oldest first, by job; nothing of jobs where nobody did."""
    found: dict[str, list[GateOverride]] = {}
    rows = session.scalars(select(GateOverride).where(GateOverride.job_id.in_(job_ids)).order_by(GateOverride.id))
    for row in rows:
        found.setdefault(row.job_id, []).append(row)
    return found


def is_released(session: Session, job: Job) -> bool:
    """Whether files that the gate guards may be downloaded: nothing withholds them, or somebody overrode the gate."""
    decided = decision(job)
    return decided is None or decided.outcome == "released" or bool(overrides(session, job.id))


def check_released(session: Session, job: Job) -> None:
    """Check that files which the gate guards may be downloaded.

    Raises:
        Withheld: code `adapter_quarantined` or `gate_undecided`, with the reasons.
    """
    decided = decision(job)
    if decided is None or is_released(session, job):
        return
    if decided.outcome == "quarantined":
        code = "adapter_quarantined"
        what = "is quarantined: it failed the policy"
    else:
        code = "gate_undecided"
        what = "is withheld: the evaluation gives no ground to release it, which says nothing about its safety"
    reasons = " ".join(reason.message for reason in decided.reasons)
    raise Withheld(
        f"What job {job.id} trained {what}. {reasons} The report has every figure. A key with the right `override` can "
        f"let it out: POST /jobs/{job.id}/gate/override.",
        code=code,
        reasons=decided.reasons,
    )


def override(session: Session, job_id: str, *, reason: str, by: Caller) -> Job:
    """Let out what the gate withholds. Doing so twice leaves two records.

    Raises:
        NotFound: there is no such job.
        Conflict: code `nothing_to_override`.
    """
    job = jobs.lock(session, job_id)
    decided = decision(job)
    if decided is None or decided.outcome == "released":
        why = "the gate has not decided about it" if decided is None else "the gate has released its adapter"
        raise Conflict(f"There is nothing to override at job {job_id}: {why}.", code="nothing_to_override")
    session.add(GateOverride(job_id=job_id, outcome=decided.outcome, reason=reason, key_id=by.key_id, key_name=by.name))
    session.flush()
    return job
