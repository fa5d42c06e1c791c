"""Overriding the gate: what it withholds is let out, on record for ever. Not here: deciding (core.gate)."""

from typing import Annotated

from fastapi import APIRouter, Body

from api import examples
from api.deps import CallerDep, JobIdPath, SessionsDep, check_right
from api.routes.jobs import shown
from core.db import gate, records
from core.db.session import transaction
from core.schemas.events import GateOverridden
from core.schemas.gate import OverrideRequest
from core.schemas.replies import JobReply

router = APIRouter(prefix="/jobs/{job_id}/gate", tags=["gate"])

_REASONS = {"reviewed": {"summary": "After a review", "value": examples.dump(examples.OVERRIDE)}}


@router.post(
    "/override",
    summary="Let out what the gate withholds",
    responses=examples.answer(200, "Let out", examples.OVERRIDDEN_JOB) | examples.errors(400, 403, 404, 409, 413),
)
def override(
    job_id: JobIdPath,
    order: Annotated[OverrideRequest, Body(openapi_examples=_REASONS)],
    caller: CallerDep,
    sessions: SessionsDep,
) -> JobReply:
    """Needs a key with the right `override`, and a reason.

    Who did it, when and why is kept for ever, and shown with the job; what the gate decided stays as it is.
    """
    check_right(caller, "override")
    with transaction(sessions) as session:
        row = gate.override(session, job_id, reason=order.reason, by=caller)
        event = GateOverridden(key_id=caller.key_id, key_name=caller.name, reason=order.reason)
        records.add_event(session, job_id, row.attempt, event)
        return shown(session, row)
