"""Datasets: uploaded once, validated whole, found again by their bytes, screened.

Not here: reading files (core.data), the screening itself (the worker).
"""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Response

from api import examples, schemas
from api.deps import CallerDep, DatasetIdPath, LimitQuery, PartsDep, SessionsDep, SettingsDep, StoreDep
from api.routes import jobs
from api.uploads import DatasetUploadDep, multipart
from core.data import validate
from core.db import datasets, policies
from core.db.session import transaction
from core.orders.check import screen_order
from core.schemas.data import ColumnMap
from core.schemas.job import DatasetId
from core.schemas.replies import DatasetReply, JobReply, Page
from core.schemas.screening import ScreenRequest

router = APIRouter(prefix="/datasets", tags=["datasets"])

_BODY = multipart(
    {
        "file": {
            "type": "string",
            "format": "binary",
            "description": "UTF-8 text: JSONL, a JSON array, or CSV with a header. Rows are chat `messages`, "
            "`prompt`/`completion`, Alpaca columns, or whatever `columns` names.",
        },
        "columns": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/ColumnMap"},
            "description": "A column map as JSON, for files in none of the known layouts.",
        },
    },
    required=("file",),
    example={
        "file": '{"question": "What is 2 + 2?", "answer": "4"}\n',
        "columns": ColumnMap(prompt="question", completion="answer").model_dump_json(exclude_none=True),
        "name": "sums",
    },
)

_SCREENINGS: dict[str, Any] = {
    "short": {"summary": "By rules, as the project's policy says", "value": {}},
    "model": {"summary": "Ask a model too", "value": {"base_model": "testbed"}},
}


@router.post(
    "",
    status_code=201,
    summary="Upload a dataset",
    openapi_extra={"requestBody": _BODY},
    responses=examples.answer(201, "Stored", examples.DATASET)
    | {200: {**examples.answer(200, "Was there already", examples.DATASET)[200], "model": DatasetReply}}
    | examples.failure(400, "Rows that cannot be used, or a body that is no upload", examples.REFUSED_ROWS)
    | examples.errors(413, 507),
)
def upload(
    received: DatasetUploadDep, sessions: SessionsDep, store: StoreDep, settings: SettingsDep, response: Response
) -> DatasetReply:
    """Every row is checked before anything is stored. The same bytes with the same column map are the same dataset."""
    summary = validate(received.path, received.columns, max_rows=settings.max_dataset_rows)
    key = f"datasets/{received.sha256[:2]}/{received.sha256}"
    with transaction(sessions) as session:
        row, new = datasets.add(
            session,
            name=received.name,
            digest=received.sha256,
            size=received.bytes,
            key=key,
            columns=received.columns,
            summary=summary,
        )
        # Inside the transaction: without room on the disk there is no row, and without a database there is no file.
        if not store.has(key):
            store.adopt(key, received.path, name=row.name, gated=False)
    response.status_code = 201 if new else 200
    response.headers["location"] = f"/datasets/{row.id}"
    return schemas.dataset(row)


@router.get(
    "",
    summary="List datasets",
    responses=examples.answer(200, "Newest first", examples.DATASETS) | examples.errors(400),
)
def list_datasets(
    sessions: SessionsDep,
    limit: LimitQuery = 20,
    after: Annotated[DatasetId | None, Query(description="Id of the last dataset of the page before.")] = None,
) -> Page[DatasetReply]:
    """Newest first. New uploads do not shift the pages behind them."""
    with transaction(sessions) as session:
        rows, more = datasets.page(session, limit=limit, after=after)
        return Page(data=tuple(schemas.dataset(row) for row in rows), has_more=more)


@router.get(
    "/{dataset_id}",
    summary="Show a dataset",
    responses=examples.answer(200, "The dataset", examples.DATASET) | examples.errors(404),
)
def show(dataset_id: DatasetIdPath, sessions: SessionsDep) -> DatasetReply:
    """What is known of one dataset."""
    with transaction(sessions) as session:
        return schemas.dataset(datasets.get(session, dataset_id, param="dataset_id"))


@router.post(
    "/{dataset_id}/screen",
    status_code=201,
    summary="Screen a dataset",
    responses=examples.answer(201, "Queued", examples.SCREEN_JOB) | examples.errors(400, 404, 413),
)
def screen(
    dataset_id: DatasetIdPath,
    caller: CallerDep,
    parts: PartsDep,
    response: Response,
    asked: Annotated[ScreenRequest | None, Body(openapi_examples=_SCREENINGS)] = None,
) -> JobReply:
    """Looks for rows that are unsafe to train on, without training: harm, identity, secrets, personal data, duplicates,
    poison; with a base model also what it would refuse.

    A job like any other: `GET /jobs/{id}/screening` has every finding with its line when it has succeeded.
    """
    with transaction(parts.sessions) as session:
        datasets.get(session, dataset_id, param="dataset_id")
        held = policies.current(session, caller.project)
        spec = screen_order(dataset_id, asked or ScreenRequest(), held.policy, parts.catalog)
        row = jobs.queued(session, spec, caller.project, held)
    return jobs.announced(row, parts.celery, response)
