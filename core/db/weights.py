"""Queries on trained weights: which of them another decision of the same project keeps in quarantine.

Weights are recognised by their digest, whatever job trained them again. Not here: the decision about a job itself
(core.db.gate), computing digests (core.lm.weights).
"""

from collections.abc import Iterable, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.db import jobs
from core.db.models import GateOverride, TrainedWeights
from core.schemas.gate import GateDecision
from core.schemas.results import JudgedWeights


def add(session: Session, job_id: str, weights: Iterable[JudgedWeights], *, own: str | None) -> None:
    """Record the weights of a job's runs; `own` is the label of the run that the job offers."""
    project = jobs.get(session, job_id).project
    session.add_all(
        TrainedWeights(
            job_id=job_id,
            run=each.gate.run,
            project=project,
            sha256=each.sha256,
            offered=each.gate.run == own,
            decision=each.gate.model_dump(mode="json"),
        )
        for each in weights
    )
    session.flush()


def quarantines(session: Session, *job_ids: str) -> dict[str, TrainedWeights]:
    """For each job whose offered weights another run's decision keeps in quarantine, the newest such decision.

    A quarantine ends with a later release of the same weights that is at least as strict (`GateDecision.lifts`), or
    with a later override of a job that offers them.
    """
    offered = session.scalars(
        select(TrainedWeights).where(TrainedWeights.job_id.in_(job_ids), TrainedWeights.offered)
    ).all()
    if not offered:
        return {}
    rows = session.scalars(
        select(TrainedWeights)
        .where(
            TrainedWeights.project.in_({row.project for row in offered}),
            TrainedWeights.sha256.in_({row.sha256 for row in offered}),
        )
        .order_by(TrainedWeights.created_at)
    ).all()
    found: dict[str, TrainedWeights] = {}
    for row in offered:
        same = [each for each in rows if (each.project, each.sha256) == (row.project, row.sha256)]
        for each in _in_force(session, same):
            if (each.job_id, each.run) != (row.job_id, row.run):
                found[row.job_id] = each
    return found


def _in_force(session: Session, same: Sequence[TrainedWeights]) -> list[TrainedWeights]:
    """The quarantines of one set of weights that nothing has ended, oldest first."""
    decisions = [(row, GateDecision.model_validate(row.decision)) for row in same]
    quarantined = [(row, decision) for row, decision in decisions if decision.outcome == "quarantined"]
    if not quarantined:
        return []
    overridden = session.scalar(
        select(func.max(GateOverride.created_at)).where(
            GateOverride.job_id.in_({row.job_id for row in same if row.offered})
        )
    )
    return [
        row
        for row, decision in quarantined
        if not (overridden is not None and overridden > row.created_at)
        and not any(later.created_at > row.created_at and release.lifts(decision) for later, release in decisions)
    ]
