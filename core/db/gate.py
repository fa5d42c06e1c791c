"""Queries on decisions of the gate, and on overrides, which are added and never changed.

Not here: making the decision (core.gate), recognising weights (core.db.weights).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.db import jobs, weights
from core.db.models import GateOverride, Job, TrainedWeights
from core.errors import Conflict, Withheld
from core.schemas.gate import GateDecision, GateReason
from core.schemas.keys import Caller

_NOT_DECIDED = GateReason(
    code="not_decided",
    message="The job ran before the gate existed, so there is no decision about its adapter. Create the job again.",
)


@dataclass(frozen=True)
class Standing:
    """Whether the gated files of a job may be downloaded, and why."""

    decision: GateDecision | None
    """The decision about the job, or another job's quarantine of the same weights; None if it has not succeeded, or
    trained nothing."""
    overrides: Sequence[GateOverride]
    """Overrides of this job, oldest first."""

    @property
    def released(self) -> bool:
        """Whether the files may be downloaded: the gate released them, or somebody overrode it."""
        return self.decision is None or self.decision.outcome == "released" or bool(self.overrides)


def standings(session: Session, *rows: Job) -> dict[str, Standing]:
    """The standing of each job, by its id."""
    ids = [row.id for row in rows]
    found, quarantines = overrides(session, *ids), weights.quarantines(session, *ids)
    return {row.id: Standing(_decision(row, quarantines.get(row.id)), found.get(row.id, [])) for row in rows}


def _decision(job: Job, quarantine: TrainedWeights | None) -> GateDecision | None:
    if job.gate is not None:
        own = GateDecision.model_validate(job.gate)
        return own if quarantine is None else _quarantined(own, quarantine)
    if job.status != "succeeded" or job.spec.get("kind") in ("screen", "check"):
        return None
    return GateDecision(run="", outcome="undecided", reasons=(_NOT_DECIDED,), checks=(), policy_version=0)


def _quarantined(own: GateDecision, quarantine: TrainedWeights) -> GateDecision:
    """A job's decision under another decision's quarantine of its weights."""
    why = GateDecision.model_validate(quarantine.decision).reasons
    message = (
        f"The same weights (SHA-256 {quarantine.sha256[:12]}) are quarantined: run {quarantine.run} of job "
        f"{quarantine.job_id}. {why[0].message if why else ''} They stay so until an override, or until a job measures "
        "at least as much under rules at least as strict and is released."
    )
    reason = GateReason(code="weights_quarantined", message=message)
    return own.model_copy(update={"outcome": "quarantined", "reasons": (reason, *own.reasons)})


def overrides(session: Session, *job_ids: str) -> dict[str, list[GateOverride]]:
    """Overrides of these jobs, oldest first, by job; jobs without overrides are missing."""
    found: dict[str, list[GateOverride]] = {}
    rows = session.scalars(select(GateOverride).where(GateOverride.job_id.in_(job_ids)).order_by(GateOverride.id))
    for row in rows:
        found.setdefault(row.job_id, []).append(row)
    return found


def standing(session: Session, job: Job) -> Standing:
    """The standing of one job."""
    return standings(session, job)[job.id]


def check_released(session: Session, job: Job) -> None:
    """Check that the gated files of a job may be downloaded.

    Raises:
        Withheld: code `adapter_quarantined` or `gate_undecided`, with the reasons.
    """
    held = standing(session, job)
    decided = held.decision
    if decided is None or held.released:
        return
    repair = ""
    if decided.outcome == "quarantined":
        code = "adapter_quarantined"
        repair = f"A repair may make it pass: POST /jobs/{job.id}/repair. "
        what = "is quarantined, because it does not meet the policy"
    else:
        code = "gate_undecided"
        what = "is withheld, because the evaluation is inconclusive. This does not mean that it is unsafe"
    reasons = " ".join(reason.message for reason in decided.reasons)
    raise Withheld(
        f"The model of job {job.id} {what}. {reasons} The report has every figure. {repair}A key with the "
        f"right `override` can release it: POST /jobs/{job.id}/gate/override.",
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
    decided = standing(session, job).decision
    if decided is None or decided.outcome == "released":
        why = "there is no decision about it" if decided is None else "the gate has released its files"
        raise Conflict(f"There is nothing to override for job {job_id}: {why}.", code="nothing_to_override")
    session.add(GateOverride(job_id=job_id, outcome=decided.outcome, reason=reason, key_id=by.key_id, key_name=by.name))
    session.flush()
    return job
