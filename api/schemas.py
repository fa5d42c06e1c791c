"""From rows of the database and entries of the server's list to replies.

The replies' classes are in core.spec.replies, where the client reads them. Not here: base models (api.routes.models).
"""

from collections.abc import Iterable
from urllib.parse import quote

from core.db.models import Artifact, Dataset, Event, Job, PromptSet
from core.spec.data import ColumnMap, DatasetSummary
from core.spec.events import JOB_EVENT, JobError, Progress
from core.spec.job import JobSpec
from core.spec.prompts import HubFileSource, PromptFileSummary, PromptSetEntry
from core.spec.replies import ArtifactReply, DatasetReply, EventReply, JobLinks, JobReply, JobSummary, PromptSetReply
from core.spec.results import Figure

ADAPTER = "adapter.tar"
ADAPTER_FOLDER = "adapter/"
MODEL = "model.tar"
MODEL_FOLDER = "model/"
REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
ROBUSTNESS = "robustness.json"
ANSWERS = "answers.jsonl"
_ADDRESSES = {
    ADAPTER: "adapter",
    MODEL: "model",
    REPORT_JSON: "report?format=json",
    REPORT_HTML: "report?format=html",
    ROBUSTNESS: "robustness",
    ANSWERS: "answers",
}


def dataset(row: Dataset) -> DatasetReply:
    """A dataset's row as its user sees it."""
    return DatasetReply(
        id=row.id,
        name=row.name,
        sha256=row.sha256,
        bytes=row.bytes,
        columns=ColumnMap.model_validate(row.columns) if row.columns else None,
        summary=DatasetSummary.model_validate(row.summary),
        created_at=row.created_at,
    )


def prompt_set(row: PromptSet) -> PromptSetReply:
    """An uploaded set's row as its user sees it."""
    return PromptSetReply(
        id=row.id,
        name=row.name,
        source="upload",
        layout=row.layout,
        sha256=row.sha256,
        bytes=row.bytes,
        summary=PromptFileSummary.model_validate(row.summary),
        created_at=row.created_at,
    )


def listed_prompt_set(entry: PromptSetEntry) -> PromptSetReply:
    """A set of the server's list."""
    hub = entry.source if isinstance(entry.source, HubFileSource) else None
    return PromptSetReply(
        id=entry.name,
        name=entry.name,
        source=entry.source.kind,
        layout=entry.layout,
        description=entry.description,
        hub_id=hub.id if hub else None,
        revision=hub.revision if hub else None,
        file=hub.file if hub else None,
    )


def job_summary(row: Job) -> JobSummary:
    """A job's row as lists show it."""
    progress = Progress.model_validate(row.progress) if row.progress else None
    spec = JobSpec.model_validate(row.spec)
    return JobSummary(
        id=row.id,
        status=row.status,
        stage=progress.stage if progress else None,
        progress=progress,
        error=JobError.model_validate(row.error) if row.error else None,
        attempt=row.attempt,
        cancel_requested_at=row.cancel_requested_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        spec=spec,
        links=_links(row, spec),
    )


def job(row: Job, figures: Iterable[Figure]) -> JobReply:
    """A job's row with its figures."""
    return JobReply(**dict(job_summary(row)), figures=tuple(figures))


def event(row: Event) -> EventReply:
    """An event's row."""
    happened = JOB_EVENT.validate_python({"type": row.type, **row.data})
    return EventReply(id=row.id, attempt=row.attempt, created_at=row.created_at, event=happened)


def artifact(row: Artifact) -> ArtifactReply:
    """A file's row."""
    return ArtifactReply(
        name=row.name, bytes=row.bytes, sha256=row.sha256, media_type=row.media_type, url=_url(row.job_id, row.name)
    )


def _links(row: Job, spec: JobSpec) -> JobLinks:
    here = f"/jobs/{row.id}"
    done = row.status == "succeeded"
    whole = spec.training.method == "full"
    return JobLinks(
        job=here,
        events=f"{here}/events",
        cancel=f"{here}/cancel",
        artifacts=f"{here}/artifacts",
        adapter=f"{here}/adapter" if done and not whole else None,
        model=f"{here}/model" if done and whole else None,
        report=f"{here}/report" if done else None,
        robustness=f"{here}/robustness" if done else None,
        answers=f"{here}/answers" if done else None,
    )


def _url(job_id: str, name: str) -> str | None:
    folder, _, file = name.rpartition("/")
    if f"{folder}/" in (ADAPTER_FOLDER, MODEL_FOLDER):
        return f"/jobs/{job_id}/{folder}/{quote(file)}"
    return f"/jobs/{job_id}/{_ADDRESSES[name]}" if name in _ADDRESSES else None
