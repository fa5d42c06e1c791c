"""From rows of the database and entries of the server's list to replies.

The replies' classes are in core.schemas.replies, where the client reads them. Not here: base models
(api.routes.models).
"""

from collections.abc import Iterable, Sequence
from urllib.parse import quote

from core.db.gate import decision
from core.db.models import Artifact, Dataset, Event, GateOverride, Job, ProjectPolicy, PromptSet
from core.schemas.data import ColumnMap, DatasetSummary
from core.schemas.events import JOB_EVENT, JobError, Progress
from core.schemas.gate import GateReply, Override
from core.schemas.job import JobOrder, JobSpec, read_order
from core.schemas.policy import Policy, PolicyRef
from core.schemas.prompts import HubFileSource, PromptFileSummary, PromptSetEntry
from core.schemas.replies import (
    ArtifactReply,
    DatasetReply,
    EventReply,
    JobLinks,
    JobReply,
    JobSummary,
    PolicyReply,
    PromptSetReply,
)
from core.schemas.results import Figure

ADAPTER = "adapter.tar"
ADAPTER_FOLDER = "adapter/"
MODEL = "model.tar"
MODEL_FOLDER = "model/"
REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
MODEL_CARD = "model_card.md"
SIGNED_REPORT = "signed_report.json"
ROBUSTNESS = "robustness.json"
SCREENING = "screening.json"
ANSWERS = "answers.jsonl"
ANSWERS_PARQUET = "answers.parquet"
GATED = frozenset({ADAPTER, MODEL})
"""Archives that are handed out only when the gate or an override lets them; so is each file in their folders."""
_ADDRESSES = {
    ADAPTER: "adapter",
    MODEL: "model",
    REPORT_JSON: "report?format=json",
    REPORT_HTML: "report?format=html",
    MODEL_CARD: "report?format=card",
    SIGNED_REPORT: "report?format=signed",
    ROBUSTNESS: "robustness",
    SCREENING: "screening",
    ANSWERS: "answers?format=jsonl",
    ANSWERS_PARQUET: "answers?format=parquet",
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


def policy(project: str, row: ProjectPolicy | None) -> PolicyReply:
    """A version's row, or the built-in policy of a project that never set one."""
    if row is None:
        return PolicyReply(project=project, version=0, policy=Policy(), key_id=None, created_at=None)
    return PolicyReply(
        project=row.project,
        version=row.version,
        policy=Policy.model_validate(row.policy),
        key_id=row.key_id,
        created_at=row.created_at,
    )


def gate(row: Job, overrides: Sequence[GateOverride]) -> GateReply | None:
    """What the gate decided about a job, and who overrode it."""
    decided = decision(row)
    if decided is None:
        return None
    return GateReply(
        outcome=decided.outcome,
        reasons=decided.reasons,
        notes=decided.notes,
        policy_version=decided.policy_version,
        available=decided.outcome == "released" or bool(overrides),
        overrides=tuple(
            Override(
                reason=each.reason,
                key_id=each.key_id,
                key_name=each.key_name,
                outcome=each.outcome,
                created_at=each.created_at,
            )
            for each in overrides
        ),
    )


def job_summary(row: Job, overrides: Sequence[GateOverride] = ()) -> JobSummary:
    """A job's row as lists show it."""
    progress = Progress.model_validate(row.progress) if row.progress else None
    spec = read_order(row.spec)
    decided = gate(row, overrides)
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
        project=row.project,
        spec=spec,
        gate=decided,
        links=_links(row, spec, available=decided is not None and decided.available),
    )


def job(row: Job, figures: Iterable[Figure], overrides: Sequence[GateOverride] = ()) -> JobReply:
    """A job's row with its figures."""
    held = PolicyRef.model_validate(row.policy) if row.policy else None
    return JobReply(**dict(job_summary(row, overrides)), policy=held, figures=tuple(figures))


def event(row: Event) -> EventReply:
    """An event's row."""
    happened = JOB_EVENT.validate_python({"type": row.type, **row.data})
    return EventReply(id=row.id, attempt=row.attempt, created_at=row.created_at, event=happened)


def artifact(row: Artifact) -> ArtifactReply:
    """A file's row."""
    return ArtifactReply(
        name=row.name, bytes=row.bytes, sha256=row.sha256, media_type=row.media_type, url=_url(row.job_id, row.name)
    )


def _links(row: Job, spec: JobOrder, *, available: bool) -> JobLinks:
    here = f"/jobs/{row.id}"
    done = row.status == "succeeded"
    tuned = done and isinstance(spec, JobSpec)
    whole = isinstance(spec, JobSpec) and spec.training.method == "full"
    return JobLinks(
        job=here,
        events=f"{here}/events",
        cancel=f"{here}/cancel",
        artifacts=f"{here}/artifacts",
        adapter=f"{here}/adapter" if available and not whole else None,
        model=f"{here}/model" if available and whole else None,
        report=f"{here}/report" if tuned else None,
        signed_report=f"{here}/report?format=signed" if tuned else None,
        robustness=f"{here}/robustness" if tuned else None,
        screening=f"{here}/screening" if done else None,
        answers=f"{here}/answers" if tuned else None,
    )


def _url(job_id: str, name: str) -> str | None:
    folder, _, file = name.rpartition("/")
    if f"{folder}/" in (ADAPTER_FOLDER, MODEL_FOLDER):
        return f"/jobs/{job_id}/{folder}/{quote(file)}"
    return f"/jobs/{job_id}/{_ADDRESSES[name]}" if name in _ADDRESSES else None
