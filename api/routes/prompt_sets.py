"""Prompt sets, which attacks are built from: uploaded sets, and those of the server's list.

Not here: reading files (core.data.promptsets), the list itself (core.catalog).
"""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api import examples, schemas
from api.deps import LimitQuery, PartsDep, PromptSetPath
from api.uploads import LAYOUTS, PromptUploadDep, multipart, store_in_turn
from core import orders
from core.db import prompt_sets
from core.db.models import PromptSet
from core.db.rows import newest_first
from core.db.session import transaction
from core.schemas.prompts import PromptSetName, is_uploaded
from core.schemas.replies import Page, PromptSetReply

router = APIRouter(prefix="/prompt-sets", tags=["prompt sets"])

_BODY = multipart(
    {
        "file": {
            "type": "string",
            "format": "binary",
            "description": "UTF-8 text: CSV with a header, JSONL, or a JSON array.",
        },
        "layout": {
            "type": "string",
            "enum": list(LAYOUTS),
            "description": "Names of its columns: those of the published set of that name, or `plain` for `text`, "
            "`category` and `context`, of which only `text` is required.",
        },
    },
    required=("file", "layout"),
    example={"file": "text,category\nExplain how to forge a seal.,fraud\n", "layout": "plain", "name": "mine"},
)


@router.post(
    "",
    status_code=201,
    summary="Upload a prompt set",
    openapi_extra={"requestBody": _BODY},
    response_description="The file is stored",
    responses={200: {"description": "The file was stored before", "model": PromptSetReply}}
    | examples.errors(400, 413, 507),
)
async def upload(received: PromptUploadDep, request: Request, parts: PartsDep, response: Response) -> PromptSetReply:
    """Validates every row, then stores the file. The same bytes with the same layout are the same prompt set."""
    file, layout = received
    store = partial(orders.store_prompts, parts.sessions, parts.store, file, layout)
    row, new = await store_in_turn(request, parts, store)
    response.status_code = 201 if new else 200
    response.headers["location"] = f"/prompt-sets/{row.id}"
    return schemas.prompt_set(row)


@router.get(
    "",
    summary="List prompt sets",
    response_description="The server's list, then uploads",
    responses=examples.errors(400),
)
def list_prompt_sets(
    parts: PartsDep,
    limit: LimitQuery = 20,
    after: Annotated[PromptSetName | None, Query(description="Id of the last set of the previous page.")] = None,
) -> Page[PromptSetReply]:
    """Sets of the server's list by name, then uploaded sets, newest first."""
    uploaded = after if after and is_uploaded(after) else None
    names = [] if uploaded else sorted(name for name in parts.catalog.prompt_sets if after is None or name > after)
    of_list = [schemas.listed_prompt_set(parts.catalog.prompt_sets[name]) for name in names]
    with transaction(parts.sessions) as session:
        rows, more = newest_first(session, PromptSet, limit=max(0, limit - len(of_list)), after=uploaded)
        found = (*of_list, *map(schemas.prompt_set, rows))
    return Page(data=found[:limit], has_more=more or len(found) > limit)


@router.get(
    "/{prompt_set_id}", summary="Get a prompt set", response_description="The set", responses=examples.errors(404)
)
def show(prompt_set_id: PromptSetPath, parts: PartsDep) -> PromptSetReply:
    """Name, layout and source of an uploaded or listed prompt set."""
    if prompt_set_id in parts.catalog.prompt_sets:
        return schemas.listed_prompt_set(parts.catalog.prompt_sets[prompt_set_id])
    with transaction(parts.sessions) as session:
        return schemas.prompt_set(prompt_sets.get(session, prompt_set_id, param="prompt_set_id"))
