"""The base models that jobs may name, and their checks.

Not here: the list itself (core.catalog), checking a model (the worker).
"""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Response

from api import examples, schemas
from api.deps import CallerDep, PartsDep
from core import catalog, orders
from core.db.session import transaction
from core.errors import InvalidModel
from core.schemas.job import CheckRequest
from core.schemas.models import BaseModelEntry, HubSource, ModelName
from core.schemas.replies import JobReply, ModelCheckReply, ModelReply, Page

router = APIRouter(prefix="/models", tags=["models"])

ModelPath = Annotated[ModelName, Path(description="Name of a base model, as `GET /models` lists it.")]
_CHECKS: dict[str, Any] = {
    "short": {"summary": "The default lengths and batch sizes", "value": {}},
    "long": {"summary": "Long rows, one or two at a time", "value": {"lengths": [2048, 4096], "batch_sizes": [1, 2]}},
}


@router.get("", summary="List base models", response_description="By name")
def list_models(parts: PartsDep) -> Page[ModelReply]:
    """Base models by name; `problem` says why a model is not usable. Only these models can be tuned."""
    return Page(data=tuple(_reply(entry) for _, entry in sorted(parts.catalog.models.items())), has_more=False)


@router.post(
    "/{name}/check",
    status_code=201,
    summary="Check a base model",
    response_description="The check is queued",
    responses=examples.errors(400, 413),
)
def order_check(
    name: ModelPath,
    caller: CallerDep,
    parts: PartsDep,
    response: Response,
    request: Annotated[CheckRequest | None, Body(openapi_examples=_CHECKS)] = None,
) -> JobReply:
    """Finds out on the worker whether a base model can be tuned and protected, before anything is trained.

    It loads the model, describes its modules and chat template, estimates the memory of training, measures refusals and
    speeds, and recommends settings. This is a job like any other: after it has succeeded, `GET /models/{name}/check`
    has the result.
    """
    order = request or CheckRequest()
    row = orders.check_model(parts.sessions, parts.catalog, caller, name, order, send=parts.send)
    response.headers["location"] = f"/jobs/{row.id}"
    return schemas.new_job(row)


@router.get(
    "/{name}/check",
    summary="Get the check of a base model",
    response_description="The newest check",
    responses=examples.errors(400, 404),
)
def show_check(name: ModelPath, parts: PartsDep) -> ModelCheckReply:
    """The newest check, ordered by any project. It contains nothing of a project's data.

    A check is not returned any more once the model's entry in the server's list or its files have changed. On a server
    without the files, only the entry is compared; weights that were replaced by others of the same size go unnoticed.
    """
    with transaction(parts.sessions) as session:
        job, check = orders.latest_check(session, parts.store, parts.catalog, name)
        return ModelCheckReply(job_id=job.id, measured_at=job.finished_at or job.updated_at, check=check)


def _reply(entry: BaseModelEntry) -> ModelReply:
    hub = entry.source if isinstance(entry.source, HubSource) else None
    problem = _problem(entry)
    return ModelReply(
        name=entry.name,
        description=entry.description,
        learning_rate=entry.learning_rate,
        source=entry.source.kind,
        hub_id=hub.id if hub else None,
        revision=hub.revision if hub else None,
        chat_template=entry.chat_template,
        unaligned_base=entry.unaligned_base is not None,
        usable=problem is None,
        problem=problem,
    )


def _problem(entry: BaseModelEntry) -> str | None:
    try:
        catalog.find({entry.name: entry}, entry.name)
    except InvalidModel as error:
        return error.message
    return None
