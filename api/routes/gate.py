"""Overriding the gate. Not here: the decision (core.gate)."""

from typing import Annotated

from fastapi import APIRouter, Body

from api import examples, schemas
from api.deps import CallerDep, JobIdPath, PartsDep
from core import orders
from core.db.session import transaction
from core.schemas.gate import OverrideRequest
from core.schemas.replies import JobReply

router = APIRouter(prefix="/jobs/{job_id}/gate", tags=["gate"])


@router.post(
    "/override",
    summary="Override the gate",
    response_description="The files are released",
    responses=examples.errors(400, 403, 404, 409, 413),
)
def override(
    job_id: JobIdPath, request: Annotated[OverrideRequest, Body()], caller: CallerDep, parts: PartsDep
) -> JobReply:
    """Releases the files that the gate withholds. Needs a key with the right `override`, and a reason.

    The key, the time and the reason are stored permanently and shown with the job. The decision does not change.
    """
    with transaction(parts.sessions) as session:
        return schemas.job(session, orders.override(session, caller, job_id, reason=request.reason))
