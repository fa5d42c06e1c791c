"""What a finished job leaves: adapter or model, report, robustness map, answers.

Only names in the database lead to a file.

Not here: how a file is sent (api.downloads).
"""

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path, Query
from fastapi.responses import FileResponse

from api import examples, file_examples, schemas
from api.deps import JobIdPath, SessionsDep, StoreDep
from api.downloads import Download
from core.db import gate, jobs, records
from core.db.session import Sessions, transaction
from core.errors import Conflict
from core.schemas.replies import ArtifactReply, Page
from core.schemas.results import Report, RobustnessResult
from core.schemas.screening import ScreeningResult
from core.storage import ArtifactStore

router = APIRouter(prefix="/jobs/{job_id}", tags=["artifacts"])

FileName = Annotated[
    str,
    Path(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$",
        max_length=200,
        description="Name of one of its files, such as `tokenizer.json`.",
    ),
]

# A report is HTML of our own, but it shows what models answered. Nothing in it runs, loads or leads anywhere.
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)
_REPR_DIGEST = {
    "Repr-Digest": {"description": "SHA-256 of the whole file (RFC 9530).", "schema": {"type": "string"}},
    "ETag": {"description": "The same digest; good for `If-Range`.", "schema": {"type": "string"}},
}


_BYTES = {"schema": {"type": "string", "format": "binary"}}
_LINES = {
    "schema": {"type": "string", "description": "One JSON object on each line, as in the example."},
    "example": file_examples.ANSWER.model_dump_json() + "\n",
}


def _file(description: str, content: dict[str, object], model: object = None) -> examples.Responses:
    """`content`: what is documented of each media type. `model`: the class of the JSON, when there is one."""
    part = "A part of the file, as `Range` asked"
    whole = {"description": description, "content": content, "headers": _REPR_DIGEST}
    return {
        200: whole | ({"model": model} if model else {}),
        206: {"description": part, "content": dict.fromkeys(content, _BYTES), "headers": _REPR_DIGEST},
        304: {"description": "`If-None-Match` names this file"},
    } | examples.errors(404, 409, 416)


def _trained(found: examples.Responses) -> examples.Responses:
    """What was trained may be withheld."""
    return found | examples.errors(403)


def _archive(of: str) -> examples.Responses:
    return _file(f"One archive with every file of the {of}", {"application/x-tar": _BYTES})


def _member(config: dict[str, object]) -> examples.Responses:
    """One of an archive's files: weights, or JSON such as this configuration."""
    as_json = {"schema": {"type": "object"}, "example": config}
    return _file("The file", {"application/octet-stream": _BYTES, "application/json": as_json})


@router.get(
    "/artifacts",
    summary="List a job's files",
    responses=examples.answer(200, "By name", examples.ARTIFACTS) | examples.errors(404),
)
def list_artifacts(job_id: JobIdPath, sessions: SessionsDep) -> Page[ArtifactReply]:
    """By name; empty before the job has succeeded."""
    with transaction(sessions) as session:
        jobs.get(session, job_id)
        rows = records.artifacts(session, job_id)
        return Page(data=tuple(schemas.artifact(row) for row in rows), has_more=False)


@router.head("/adapter", include_in_schema=False)
@router.get(
    "/adapter",
    summary="Download the adapter",
    response_class=FileResponse,
    responses=_trained(_archive("adapter")),
)
def adapter(job_id: JobIdPath, sessions: SessionsDep, store: StoreDep) -> Download:
    """Takes range requests, so that a broken download can go on where it stopped."""
    return _download(sessions, store, job_id, schemas.ADAPTER, filename=f"{job_id}-adapter.tar")


@router.head("/adapter/{filename}", include_in_schema=False)
@router.get(
    "/adapter/{filename}",
    summary="Download one file of the adapter",
    response_class=FileResponse,
    responses=_trained(_member(file_examples.ADAPTER_CONFIG)),
)
def adapter_file(job_id: JobIdPath, filename: FileName, sessions: SessionsDep, store: StoreDep) -> Download:
    """The files that the archive holds, one by one; `GET /jobs/{job_id}/artifacts` lists them."""
    return _download(sessions, store, job_id, f"{schemas.ADAPTER_FOLDER}{filename}", filename=filename)


@router.head("/model", include_in_schema=False)
@router.get(
    "/model",
    summary="Download the whole model",
    response_class=FileResponse,
    responses=_trained(_archive("model")),
)
def model(job_id: JobIdPath, sessions: SessionsDep, store: StoreDep) -> Download:
    """What a job with the method `full` leaves instead of an adapter. Takes range requests."""
    return _download(sessions, store, job_id, schemas.MODEL, filename=f"{job_id}-model.tar")


@router.head("/model/{filename}", include_in_schema=False)
@router.get(
    "/model/{filename}",
    summary="Download one file of the whole model",
    response_class=FileResponse,
    responses=_trained(_member(file_examples.MODEL_CONFIG)),
)
def model_file(job_id: JobIdPath, filename: FileName, sessions: SessionsDep, store: StoreDep) -> Download:
    """The files that the archive holds, one by one; `GET /jobs/{job_id}/artifacts` lists them."""
    return _download(sessions, store, job_id, f"{schemas.MODEL_FOLDER}{filename}", filename=filename)


_FORMS: dict[str, tuple[str, dict[str, str]]] = {
    "json": (schemas.REPORT_JSON, {"vary": "accept"}),
    "html": (schemas.REPORT_HTML, {"content-security-policy": REPORT_POLICY, "vary": "accept"}),
    "card": (schemas.MODEL_CARD, {}),
    "signed": (schemas.SIGNED_REPORT, {}),
}


@router.head("/report", include_in_schema=False)
@router.get(
    "/report",
    summary="Read the security report",
    response_class=FileResponse,
    responses=_file(
        "The report",
        {
            "application/json": {"example": examples.dump(file_examples.REPORT)},
            "text/html": _BYTES,
            "text/markdown": _BYTES,
            "application/vnd.dsse.envelope.v1+json": _BYTES,
        },
        Report,
    ),
)
def report(
    job_id: JobIdPath,
    sessions: SessionsDep,
    store: StoreDep,
    form: Annotated[
        Literal["json", "html", "card", "signed"] | None,
        Query(
            alias="format",
            description="Which form; wins over `Accept`. `card`: a model card in Markdown. `signed`: an in-toto "
            "statement over every file, with the report in it, for `securetune verify`.",
        ),
    ] = None,
    accept: Annotated[str, Header(description="`text/html` asks for a page; JSON is sent otherwise.")] = "",
) -> Download:
    """Every figure with its count and interval, before and after training, and what the gate decided by them."""
    name, headers = _FORMS[form or ("html" if "text/html" in accept else "json")]
    return _download(sessions, store, job_id, name, headers=headers)


@router.head("/screening", include_in_schema=False)
@router.get(
    "/screening",
    summary="Read what was found in the data",
    response_class=FileResponse,
    responses=_file(
        "Every finding with its line",
        {"application/json": {"example": examples.dump(file_examples.SCREENING)}},
        ScreeningResult,
    ),
)
def screening(job_id: JobIdPath, sessions: SessionsDep, store: StoreDep) -> Download:
    """Rows that look unsafe to train on, each with its line in the file, and what became of them."""
    return _download(sessions, store, job_id, schemas.SCREENING)


@router.head("/robustness", include_in_schema=False)
@router.get(
    "/robustness",
    summary="Read the robustness map",
    response_class=FileResponse,
    responses=_file(
        "Drift and task gain of every module, and the search for the robust subset; one map for each analysis",
        {"application/json": {"example": [examples.dump(file_examples.ROBUSTNESS)]}},
        list[RobustnessResult],
    ),
)
def robustness(job_id: JobIdPath, sessions: SessionsDep, store: StoreDep) -> Download:
    """Which modules of the base model keep its security when they change."""
    return _download(sessions, store, job_id, schemas.ROBUSTNESS)


@router.head("/answers", include_in_schema=False)
@router.get(
    "/answers",
    summary="Read every answer",
    response_class=FileResponse,
    responses=_file(
        "One answer on each line, with its verdicts",
        {"application/jsonl": _LINES, "application/vnd.apache.parquet": _BYTES},
    ),
)
def answers(
    job_id: JobIdPath,
    sessions: SessionsDep,
    store: StoreDep,
    form: Annotated[Literal["jsonl", "parquet"], Query(alias="format", description="Which form.")] = "jsonl",
) -> Download:
    """What every model said to every prompt. Answers of attacked models may be harmful."""
    name = schemas.ANSWERS if form == "jsonl" else schemas.ANSWERS_PARQUET
    return _download(sessions, store, job_id, name, filename=f"{job_id}-{name}")


def _download(
    sessions: Sessions,
    store: ArtifactStore,
    job_id: str,
    name: str,
    *,
    filename: str | None = None,
    headers: dict[str, str] | None = None,
) -> Download:
    with transaction(sessions) as session:
        job = jobs.get(session, job_id)
        if job.status != "succeeded":
            ended = job.status in ("failed", "cancelled")
            code = f"job_{job.status}" if ended else "job_not_finished"
            why = "it left no files" if ended else "its files are there when it has succeeded"
            raise Conflict(f"Job {job_id} is {job.status}: {why}.", code=code)
        row = records.artifact(session, job_id, name)
        if name in schemas.GATED or name.startswith((schemas.ADAPTER_FOLDER, schemas.MODEL_FOLDER)):
            gate.check_released(session, job)
    path = store.path(row.key)
    return Download(path, sha256=row.sha256, media_type=row.media_type, filename=filename, headers=headers)
