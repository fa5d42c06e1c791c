"""Datasets: uploaded, listed, previewed, screened.

Not here: reading files (core.data), computing previews (api.tokenizers), the screening itself (the worker).
"""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query, Request, Response
from fastapi.responses import HTMLResponse

from api import examples, schemas
from api.context import PAGE_HEADERS
from api.deps import CallerDep, DatasetIdPath, LimitQuery, PartsDep
from api.tokenizers import model_parameter
from api.uploads import DatasetUploadDep, multipart, store_in_turn
from core import orders
from core.db import datasets
from core.db.models import Dataset
from core.db.rows import newest_first
from core.db.session import transaction
from core.reports import preview as preview_page
from core.schemas.data import ColumnMap
from core.schemas.job import DatasetId
from core.schemas.preview import Preview, PreviewRequest
from core.schemas.replies import DatasetReply, JobReply, Page
from core.schemas.screening import ScreenRequest

router = APIRouter(prefix="/datasets", tags=["datasets"])

_BODY = multipart(
    {
        "file": {
            "type": "string",
            "format": "binary",
            "description": "JSONL, a JSON array, CSV with a header, Parquet or Arrow, compressed or not. Rows have "
            "chat `messages`, ShareGPT `conversations`, `prompt` and `completion`, Alpaca, Dolly or OpenOrca columns, "
            "`text`, or the columns that `columns` names.",
        },
        "columns": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/ColumnMap"},
            "description": "A column map as JSON, for files with other columns.",
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
    "short": {"summary": "The checks of the project's policy", "value": {}},
    "model": {"summary": "Also the checks that need a base model", "value": {"base_model": "testbed"}},
}


@router.post(
    "",
    status_code=201,
    summary="Upload a dataset",
    openapi_extra={"requestBody": _BODY},
    response_description="The file is stored",
    responses={200: {"description": "The file was stored before", "model": DatasetReply}}
    | examples.errors(400, 413, 507),
)
async def upload(received: DatasetUploadDep, request: Request, parts: PartsDep, response: Response) -> DatasetReply:
    """Validates every row, then stores the file. The same bytes with the same column map are the same dataset."""
    file, columns = received
    limit = parts.settings.max_dataset_rows
    store = partial(orders.store_dataset, parts.sessions, parts.store, file, columns, max_rows=limit)
    row, new = await store_in_turn(request, parts, store)
    response.status_code = 201 if new else 200
    response.headers["location"] = f"/datasets/{row.id}"
    return schemas.dataset(row)


@router.get("", summary="List datasets", response_description="Newest first", responses=examples.errors(400))
def list_datasets(
    parts: PartsDep,
    limit: LimitQuery = 20,
    after: Annotated[DatasetId | None, Query(description="Id of the last dataset of the previous page.")] = None,
) -> Page[DatasetReply]:
    """Newest first. New uploads do not shift later pages."""
    with transaction(parts.sessions) as session:
        rows, more = newest_first(session, Dataset, limit=limit, after=after)
        return Page(data=tuple(schemas.dataset(row) for row in rows), has_more=more)


@router.get(
    "/{dataset_id}", summary="Get a dataset", response_description="The dataset", responses=examples.errors(404)
)
def show(dataset_id: DatasetIdPath, parts: PartsDep) -> DatasetReply:
    """Name, size, column map and summary of a dataset."""
    with transaction(parts.sessions) as session:
        return schemas.dataset(datasets.get(session, dataset_id, param="dataset_id"))


@router.get(
    "/{dataset_id}/preview",
    summary="Preview a dataset",
    response_model=Preview,
    response_description="The first rows, and counts",
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}} | examples.errors(400, 404),
)
def preview(
    dataset_id: DatasetIdPath,
    parts: PartsDep,
    request: Annotated[PreviewRequest, Query()],
    accept: Annotated[str, Header(description="`text/html` selects a page; the default is JSON.")] = "",
) -> Response | Preview:
    """Rows in the tokens of a base model, with what is trained on: exactly what a job with these options trains on.

    The counts cover the whole file, or the first 10,000 rows or 10 million characters of a large one.
    """
    with transaction(parts.sessions) as session:
        row = datasets.get(session, dataset_id, param="dataset_id")
        dataset, name = datasets.ref(row), row.name
    with model_parameter():
        order = orders.order_preview(parts.catalog, parts.store, dataset, request, parts.settings.max_dataset_rows)
        found = parts.tokenizers.preview(order)
    if "text/html" not in accept:
        return found
    return HTMLResponse(preview_page.html(found, name), headers=PAGE_HEADERS)


@router.post(
    "/{dataset_id}/screen",
    status_code=201,
    summary="Screen a dataset",
    response_description="The screening job is queued",
    responses=examples.errors(400, 404, 413),
)
def screen(
    dataset_id: DatasetIdPath,
    caller: CallerDep,
    parts: PartsDep,
    response: Response,
    request: Annotated[ScreenRequest | None, Body(openapi_examples=_SCREENINGS)] = None,
) -> JobReply:
    """Finds rows that are unsafe to train on, without training: harm, identity, secrets, personal data, duplicates,
    poison. With a base model, also answers to what that model would refuse.

    This is a job like any other: after it has succeeded, `GET /jobs/{id}/screening` has every finding with its line.
    """
    order = request or ScreenRequest()
    row = orders.screen(parts.sessions, parts.catalog, caller, dataset_id, order, send=parts.send)
    response.headers["location"] = f"/jobs/{row.id}"
    return schemas.new_job(row)
