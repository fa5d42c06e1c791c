"""Jobs: placed, estimated, listed, followed, cancelled.

Not here: files of a job (api.routes.artifacts), running it (worker).
"""

from typing import Annotated

from fastapi import APIRouter, Body, Query, Response

from api import examples, schemas
from api.deps import CallerDep, JobIdPath, LimitQuery, PartsDep
from core import orders
from core.db import gate, jobs, records
from core.db.models import Job
from core.db.rows import newest_first
from core.db.session import transaction
from core.schemas.estimate import Estimate
from core.schemas.job import JobId, JobSpec
from core.schemas.repair import RepairRequest
from core.schemas.replies import EventReply, JobReply, JobSummary, Page

router = APIRouter(prefix="/jobs", tags=["jobs"])

_LAST_ID = 2**63 - 1
_SHORT = {"base_model": "testbed", "dataset": "ds_5b1f0c9a7e3d2b4c6d8e9f01"}
_ORDERS = {
    "short": {"summary": "The required fields", "value": _SHORT},
    "long": {
        "summary": "Training, strategy and a baseline",
        "value": _SHORT
        | {
            "training": {"epochs": 2, "learning_rate": 5e-4, "lora": {"rank": 8, "targets": ["q", "v"]}},
            "strategy": {"kind": "ml_lr", "ratio": 0.05},
            "compare": [{"kind": "uniform"}],
        },
    },
    "guarded": {
        "summary": "A strategy with safeguards, and the same one without",
        "value": _SHORT
        | {
            "strategy": {
                "kind": "swat",
                "label": "guarded",
                "safeguards": {"safety_mix": {"share": 0.05}, "constrained_first_tokens": {"tokens": 5}},
            },
            "compare": [{"kind": "swat"}],
        },
    },
    "judged": {
        "summary": "Attacks, prompts, judges and tasks by name",
        "value": _SHORT
        | {
            "security": {
                "suite": "quick",
                "attacks": ["direct", {"family": "prefill", "tokens": 4}],
                "prompts": {"harmful": "ps_5b1f0c9a7e3d2b4c6d8e9f01", "safe": "xstest"},
                "judges": [{"kind": "rules"}, {"kind": "strongreject", "model": "house"}],
            },
            "quality": {"domain": "medical", "tasks": [{"kind": "multiple_choice", "benchmark": "college-medicine"}]},
        },
    },
}

_REPAIRS = {
    "all": {"summary": "Both ways", "value": {"steps": 20}},
    "scaled": {"summary": "Without any training", "value": {"steps": 0}},
    "longer": {"summary": "More steps, no scaling", "value": {"steps": 60, "scale": False}},
}


@router.post(
    "",
    status_code=201,
    summary="Create a job",
    response_description="The job is queued",
    responses=examples.errors(400, 404, 413),
)
def create(
    spec: Annotated[JobSpec, Body(openapi_examples=_ORDERS)], caller: CallerDep, parts: PartsDep, response: Response
) -> JobReply:
    """Only `base_model` and `dataset` are required. The reply shows the order with every default filled in."""
    row = orders.place(parts.sessions, parts.catalog, caller, spec, send=parts.send)
    response.headers["location"] = f"/jobs/{row.id}"
    return schemas.new_job(row)


@router.post(
    "/estimate",
    summary="Estimate a job",
    response_description="Size, duration and memory of the job",
    responses=examples.errors(400, 404, 413),
)
def estimate(spec: Annotated[JobSpec, Body(openapi_examples=_ORDERS)], caller: CallerDep, parts: PartsDep) -> Estimate:
    """What a job with this order will cost. No job is made, and an order that `POST /jobs` rejects is rejected with the
    same error.

    Rows and steps are counted with the model's tokenizer. Durations follow from the speeds that earlier jobs and
    `securetune models check` measured; each has a range, and the measurement that it is based on.
    """
    return orders.estimate(
        parts.sessions,
        parts.catalog,
        parts.store,
        caller,
        spec,
        count_work=parts.tokenizers.count_work,
        max_rows=parts.settings.max_dataset_rows,
    )


@router.post(
    "/{job_id}/repair",
    status_code=201,
    summary="Repair a quarantined adapter",
    response_description="The repair is queued, as a job of its own",
    responses=examples.errors(400, 404, 409, 413),
)
def repair(
    job_id: JobIdPath,
    caller: CallerDep,
    parts: PartsDep,
    response: Response,
    request: Annotated[RepairRequest | None, Body(openapi_examples=_REPAIRS)] = None,
) -> JobReply:
    """Tries to make quarantined weights pass the gate: by some more steps with refusals of the base model among the
    rows, and by scaling the update down. Rows, model and evaluation are those of the repaired job; the policy is
    today's.

    Each way is a run of the new job, and the whole gate decides about each. The job offers the first one that is
    released. The repaired job does not change: its weights stay in quarantine.
    """
    order = request or RepairRequest()
    row = orders.repair(parts.sessions, parts.catalog, caller, job_id, order, send=parts.send)
    response.headers["location"] = f"/jobs/{row.id}"
    return schemas.new_job(row)


@router.get("", summary="List jobs", response_description="Newest first", responses=examples.errors(400))
def list_jobs(
    parts: PartsDep,
    limit: LimitQuery = 20,
    after: Annotated[JobId | None, Query(description="Id of the last job of the previous page.")] = None,
) -> Page[JobSummary]:
    """Newest first. New jobs do not shift later pages."""
    with transaction(parts.sessions) as session:
        rows, more = newest_first(session, Job, limit=limit, after=after)
        standings = gate.standings(session, *rows)
        found = tuple(schemas.job_summary(row, standings[row.id]) for row in rows)
        return Page(data=found, has_more=more)


@router.get("/{job_id}", summary="Get a job", response_description="The job", responses=examples.errors(404))
def show(job_id: JobIdPath, parts: PartsDep) -> JobReply:
    """Status, progress, and every figure measured so far."""
    with transaction(parts.sessions) as session:
        return schemas.job(session, jobs.get(session, job_id))


@router.get(
    "/{job_id}/events",
    summary="List the events of a job",
    response_description="Oldest first",
    responses=examples.errors(404),
)
def events(
    job_id: JobIdPath,
    parts: PartsDep,
    limit: LimitQuery = 100,
    after: Annotated[int, Query(ge=0, le=_LAST_ID, description="Id of the last event already received.")] = 0,
) -> Page[EventReply]:
    """Oldest first. To follow a job, repeat the request with the last id."""
    with transaction(parts.sessions) as session:
        jobs.get(session, job_id)
        rows, more = records.events(session, job_id, after=after, limit=limit)
        return Page(data=tuple(schemas.event(row) for row in rows), has_more=more)


@router.post(
    "/{job_id}/cancel",
    summary="Cancel a job",
    response_description="The job is cancelled",
    responses={202: {"description": "The worker stops the job", "model": JobReply}} | examples.errors(404, 409),
)
def cancel(job_id: JobIdPath, parts: PartsDep, response: Response) -> JobReply:
    """A queued job is cancelled at once, a running job within seconds. Repeating the request changes nothing."""
    with transaction(parts.sessions) as session:
        row = orders.cancel(session, job_id)
        response.status_code = 200 if row.status == "cancelled" else 202
        return schemas.job(session, row)
