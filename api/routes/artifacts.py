"""Files of a finished job: adapter or model, report, robustness map, answers.

Files are looked up by name in the database, never on disk. Not here: how a file is sent (api.downloads), which files
the gate withholds (core.db.artifacts).
"""

from collections.abc import Callable
from typing import Annotated, Literal, TypeVar

from fastapi import APIRouter, Header, Path, Query
from fastapi.responses import FileResponse

from api import examples, schemas
from api.context import PAGE_HEADERS
from api.deps import JobIdPath, Parts, PartsDep
from api.downloads import Download
from core.db import artifacts
from core.db.session import transaction
from core.schemas.replies import ArtifactReply, Page
from core.schemas.results import Report
from core.schemas.robustness import RobustnessResult
from core.schemas.screening import ScreeningResult

router = APIRouter(prefix="/jobs/{job_id}", tags=["artifacts"])

_Route = TypeVar("_Route", bound=Callable[..., Download])

_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
FileName = Annotated[
    str,
    Path(pattern=rf"^{_PART}$", max_length=200, description="Name of a file of the archive, such as `tokenizer.json`."),
]
FilePath = Annotated[
    str,
    Path(pattern=rf"^{_PART}(/{_PART})*$", max_length=400, description="Name of the file as the list of files has it."),
]

_HEADERS = {
    "Repr-Digest": {"description": "SHA-256 of the whole file (RFC 9530).", "schema": {"type": "string"}},
    "ETag": {"description": "The same digest, for `If-Range`.", "schema": {"type": "string"}},
}
_BYTES: dict[str, object] = {"schema": {"type": "string", "format": "binary"}}
_CONFIG: dict[str, object] = {"schema": {"type": "object"}, "example": {"base_model_name_or_path": "testbed"}}
_LINES: dict[str, object] = {
    "schema": {"type": "string", "description": "One JSON object per line."},
    "example": '{"run": "base", "suite": "direct", "prompt": 0, "answer": "I cannot help with that."}\n',
}


def _get_and_head(
    path: str, summary: str, description: str, *media_types: str, model: object = None, gated: bool = False
) -> Callable[[_Route], _Route]:
    """Register a download for GET and, undocumented, for HEAD; `model` is the class of the JSON, if there is one."""
    known: dict[str, dict[str, object]] = {"application/json": {} if model else _CONFIG, "application/jsonl": _LINES}
    content = {kind: known.get(kind, _BYTES) for kind in media_types}
    whole = {"description": description, "content": content, "headers": _HEADERS} | ({"model": model} if model else {})
    part = {"description": "A part of the file", "content": dict.fromkeys(content, _BYTES), "headers": _HEADERS}
    found = {200: whole, 206: part, 304: {"description": "`If-None-Match` names this file"}}
    responses = found | examples.errors(404, 409, 416, *([403] if gated else []))

    def register(route: _Route) -> _Route:
        router.get(path, summary=summary, response_class=FileResponse, responses=responses)(route)
        return router.head(path, include_in_schema=False)(route)

    return register


def _download(
    parts: Parts, job_id: str, name: str, *, filename: str | None = None, headers: dict[str, str] | None = None
) -> Download:
    with transaction(parts.sessions) as session:
        row = artifacts.released(session, job_id, name)
    path = parts.store.path(row.key)
    return Download(path, sha256=row.sha256, media_type=row.media_type, filename=filename, headers=headers)


@router.get("/artifacts", summary="List a job's files", response_description="By name", responses=examples.errors(404))
def list_artifacts(job_id: JobIdPath, parts: PartsDep) -> Page[ArtifactReply]:
    """Files by name. The list is empty until the job has succeeded."""
    with transaction(parts.sessions) as session:
        return schemas.artifacts(session, job_id)


@_get_and_head("/artifacts/{name:path}", "Download a file", "The file", "application/octet-stream", gated=True)
def artifact(job_id: JobIdPath, name: FilePath, parts: PartsDep) -> Download:
    """Any file of the job, by its name in `GET /jobs/{job_id}/artifacts`. Supports range requests."""
    return _download(parts, job_id, name, filename=name.rpartition("/")[2])


@_get_and_head(
    "/adapter", "Download the adapter", "One archive with every file of the adapter", "application/x-tar", gated=True
)
def adapter(job_id: JobIdPath, parts: PartsDep) -> Download:
    """Supports range requests, so that an interrupted download can be resumed."""
    return _download(parts, job_id, "adapter.tar", filename=f"{job_id}-adapter.tar")


@_get_and_head(
    "/adapter/{filename}",
    "Download one file of the adapter",
    "The file",
    "application/octet-stream",
    "application/json",
    gated=True,
)
def adapter_file(job_id: JobIdPath, filename: FileName, parts: PartsDep) -> Download:
    """The files of the archive, one by one; `GET /jobs/{job_id}/artifacts` lists them."""
    return _download(parts, job_id, f"adapter/{filename}", filename=filename)


@_get_and_head(
    "/model", "Download the whole model", "One archive with every file of the model", "application/x-tar", gated=True
)
def model(job_id: JobIdPath, parts: PartsDep) -> Download:
    """The result of a job with the method `full`, in place of an adapter. Supports range requests."""
    return _download(parts, job_id, "model.tar", filename=f"{job_id}-model.tar")


@_get_and_head(
    "/model/{filename}",
    "Download one file of the whole model",
    "The file",
    "application/octet-stream",
    "application/json",
    gated=True,
)
def model_file(job_id: JobIdPath, filename: FileName, parts: PartsDep) -> Download:
    """The files of the archive, one by one; `GET /jobs/{job_id}/artifacts` lists them."""
    return _download(parts, job_id, f"model/{filename}", filename=filename)


_FORMS: dict[str, tuple[str, dict[str, str]]] = {
    "json": ("report.json", {"vary": "accept"}),
    "html": ("report.html", PAGE_HEADERS),
    "card": ("model_card.md", {}),
    "signed": ("signed_report.json", {}),
}


@_get_and_head(
    "/report",
    "Read the security report",
    "The report",
    "application/json",
    "text/html",
    "text/markdown",
    "application/vnd.dsse.envelope.v1+json",
    model=Report,
)
def report(
    job_id: JobIdPath,
    parts: PartsDep,
    form: Annotated[
        Literal["json", "html", "card", "signed"] | None,
        Query(
            alias="format",
            description="Format of the report; overrides `Accept`. `card` is a model card in Markdown. `signed` is an "
            "in-toto statement over every file that contains the report, for `securetune verify`.",
        ),
    ] = None,
    accept: Annotated[str, Header(description="`text/html` selects the HTML page; the default is JSON.")] = "",
) -> Download:
    """Every figure with its sample size and interval, before and after training, and the decision of the gate."""
    name, headers = _FORMS[form or ("html" if "text/html" in accept else "json")]
    return _download(parts, job_id, name, headers=headers)


@_get_and_head(
    "/screening",
    "Read the findings in the data",
    "Every finding with its line",
    "application/json",
    model=ScreeningResult,
)
def screening(job_id: JobIdPath, parts: PartsDep) -> Download:
    """Rows that look unsafe to train on, each with its line in the file and the action taken."""
    return _download(parts, job_id, "screening.json")


@_get_and_head(
    "/robustness",
    "Read the robustness map",
    "One map for each analysis of the job",
    "application/json",
    model=list[RobustnessResult],
)
def robustness(job_id: JobIdPath, parts: PartsDep) -> Download:
    """Drift and task gain of every module of the base model, and the search for the robust subset."""
    return _download(parts, job_id, "robustness.json")


@_get_and_head(
    "/answers",
    "Read every answer",
    "Answers with their verdicts",
    "application/jsonl",
    "application/vnd.apache.parquet",
)
def answers(
    job_id: JobIdPath,
    parts: PartsDep,
    form: Annotated[Literal["jsonl", "parquet"], Query(alias="format", description="Format of the file.")] = "jsonl",
) -> Download:
    """Every answer of every model to every prompt. Answers of attacked models may be harmful."""
    name = f"answers.{form}"
    return _download(parts, job_id, name, filename=f"{job_id}-{name}")
