"""Jobs: ordered, watched, cancelled. Not here: what they leave behind (api.routes.artifacts), running them (worker)."""

import logging
from typing import Annotated

from celery import Celery
from fastapi import APIRouter, Body, Query, Response

from api import examples, schemas
from api.deps import CallerDep, JobIdPath, LimitQuery, PartsDep, SessionsDep
from core import queue
from core.db import datasets, gate, jobs, policies, prompt_sets, records
from core.db.models import Job
from core.db.session import Session, transaction
from core.errors import Unavailable
from core.orders.check import check_policy, complete
from core.schemas.events import StatusChanged
from core.schemas.job import JobId, JobOrder, JobSpec
from core.schemas.policy import PolicyRef
from core.schemas.replies import EventReply, JobReply, JobSummary, Page

router = APIRouter(prefix="/jobs", tags=["jobs"])

_LOG = logging.getLogger("securetune.api")
_LAST_ID = 2**63 - 1
_ORDERS = {
    "short": {"summary": "All that is needed", "value": examples.SHORT_ORDER},
    "long": {"summary": "Shape, strategy and a baseline", "value": examples.LONG_ORDER},
    "guarded": {"summary": "Safeguards on top of a strategy", "value": examples.GUARDED_ORDER},
    "judged": {"summary": "Attacks, prompts, judges and tasks by name", "value": examples.JUDGED_ORDER},
}


def queued(session: Session, spec: JobOrder, project: str, policy: PolicyRef) -> Job:
    """A new job's row, with its first event."""
    row = jobs.add(session, spec, project=project, policy=policy)
    records.add_event(session, row.id, row.attempt, StatusChanged(status="queued", message="Waiting for a worker."))
    return row


def announced(row: Job, celery: Celery, response: Response) -> JobReply:
    """Wake a worker up for a job whose row is committed, and show it."""
    try:
        queue.send(celery, row.id)
    except Unavailable as error:
        _LOG.warning("%s is queued but nobody was woken up: %s The sweep will do it.", row.id, error.message)
    response.headers["location"] = f"/jobs/{row.id}"
    return schemas.job(row, figures=())


def shown(session: Session, row: Job) -> JobReply:
    """A job with its figures and whoever overrode its gate."""
    let_out = gate.overrides(session, row.id).get(row.id, [])
    return schemas.job(row, records.figures(session, row.id), let_out)


@router.post(
    "",
    status_code=201,
    summary="Order a job",
    responses=examples.answer(201, "Queued", examples.JOB) | examples.errors(400, 404, 413),
)
def order(
    spec: Annotated[JobSpec, Body(openapi_examples=_ORDERS)],
    caller: CallerDep,
    parts: PartsDep,
    response: Response,
) -> JobReply:
    """A base model and a dataset are enough; every default is good. The reply shows the order with all of them."""
    spec = complete(spec, parts.catalog)
    with transaction(parts.sessions) as session:
        held = policies.for_job(session, caller.project, spec.policy)
        check_policy(spec, held.policy)
        datasets.get(session, spec.dataset, param="dataset")
        if spec.validation_dataset is not None:
            datasets.get(session, spec.validation_dataset, param="validation_dataset")
        prompt_sets.files(session, spec.security.prompts)
        row = queued(session, spec, caller.project, held)
    return announced(row, parts.celery, response)


@router.get(
    "",
    summary="List jobs",
    responses=examples.answer(200, "Newest first", examples.JOBS) | examples.errors(400),
)
def list_jobs(
    sessions: SessionsDep,
    limit: LimitQuery = 20,
    after: Annotated[JobId | None, Query(description="Id of the last job of the page before.")] = None,
) -> Page[JobSummary]:
    """Newest first. New jobs do not shift the pages behind them."""
    with transaction(sessions) as session:
        rows, more = jobs.page(session, limit=limit, after=after)
        let_out = gate.overrides(session, *(row.id for row in rows))
        found = tuple(schemas.job_summary(row, let_out.get(row.id, ())) for row in rows)
        return Page(data=found, has_more=more)


@router.get(
    "/{job_id}",
    summary="Show a job",
    responses=examples.answer(200, "The job", examples.JOB) | examples.errors(404),
)
def show(job_id: JobIdPath, sessions: SessionsDep) -> JobReply:
    """Where it is, how far, and every figure known so far."""
    with transaction(sessions) as session:
        return shown(session, jobs.get(session, job_id))


@router.get(
    "/{job_id}/events",
    summary="List what happened to a job",
    responses=examples.answer(200, "Oldest first", examples.EVENTS) | examples.errors(404),
)
def events(
    job_id: JobIdPath,
    sessions: SessionsDep,
    limit: LimitQuery = 100,
    after: Annotated[int, Query(ge=0, le=_LAST_ID, description="Id of the last event that is known.")] = 0,
) -> Page[EventReply]:
    """Oldest first: ask again with the last id to follow a job."""
    with transaction(sessions) as session:
        jobs.get(session, job_id)
        rows, more = records.events(session, job_id, after=after, limit=limit)
        return Page(data=tuple(schemas.event(row) for row in rows), has_more=more)


@router.post(
    "/{job_id}/cancel",
    summary="Cancel a job",
    responses=examples.answer(200, "Cancelled", examples.JOB)
    | {202: {**examples.answer(202, "Its worker was asked to stop", examples.JOB)[202], "model": JobReply}}
    | examples.errors(404, 409),
)
def cancel(job_id: JobIdPath, sessions: SessionsDep, response: Response) -> JobReply:
    """A waiting job is cancelled at once, a running one within seconds. Asking twice is asking once."""
    with transaction(sessions) as session:
        first = jobs.lock(session, job_id).cancel_requested_at is None
        row = jobs.request_cancel(session, job_id)
        if first:
            records.add_event(session, job_id, row.attempt, _cancelled(row.status == "cancelled"))
        response.status_code = 200 if row.status == "cancelled" else 202
        return shown(session, row)


def _cancelled(at_once: bool) -> StatusChanged:
    if at_once:
        return StatusChanged(status="cancelled", message="Cancelled before a worker took it up.")
    return StatusChanged(status="cancelling", message="Its worker was asked to stop.")
