"""From rows of the database and entries of the server's list to replies.

Not here: the classes of replies (core.schemas.replies), replies of a single route (api.routes).
"""

from collections.abc import Iterable
from urllib.parse import quote

from core.db import artifacts as artifact_queries
from core.db import gate as gate_queries
from core.db import jobs, records
from core.db.gate import Standing
from core.db.models import Artifact, Dataset, Event, Job, ProjectPolicy, PromptSet
from core.db.session import Session
from core.schemas.evaluation import Figure
from core.schemas.events import JOB_EVENT
from core.schemas.gate import GateReply, Override
from core.schemas.job import CheckSpec, JobOrder, JobSpec, read_order
from core.schemas.policy import Policy, PolicyRef
from core.schemas.prompts import HubFileSource, PromptFileSummary, PromptSetEntry
from core.schemas.replies import (
    ArtifactReply,
    DatasetReply,
    EventReply,
    JobLinks,
    JobReply,
    JobSummary,
    Page,
    PolicyReply,
    PromptSetReply,
)

_NO_DECISION = Standing(None, ())


def dataset(row: Dataset) -> DatasetReply:
    """The reply about a dataset."""
    return DatasetReply.model_validate(row, from_attributes=True)


def prompt_set(row: PromptSet) -> PromptSetReply:
    """The reply about an uploaded prompt set."""
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
    """The reply about a prompt set of the server's list."""
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
    """A version of a policy; the built-in policy if the project never set one."""
    if row is None:
        return PolicyReply(project=project, version=0, policy=Policy(), key_id=None, created_at=None)
    return PolicyReply.model_validate(row, from_attributes=True)


def gate(standing: Standing) -> GateReply | None:
    """The decision of the gate about a job, and its overrides; None before there is one."""
    decided = standing.decision
    if decided is None:
        return None
    return GateReply(
        outcome=decided.outcome,
        reasons=decided.reasons,
        notes=decided.notes,
        policy_version=decided.policy_version,
        available=standing.released,
        overrides=tuple(Override.model_validate(each, from_attributes=True) for each in standing.overrides),
    )


def job_summary(row: Job, standing: Standing = _NO_DECISION) -> JobSummary:
    """The reply about a job in a list."""
    spec = read_order(row.spec)
    decided = gate(standing)
    computed = {
        "stage": row.progress["stage"] if row.progress else None,
        "spec": spec,
        "gate": decided,
        "links": _links(row, spec, available=decided is not None and decided.available),
    }
    columns = {name: getattr(row, name) for name in JobSummary.model_fields if name not in computed}
    return JobSummary.model_validate(columns | computed)


def new_job(row: Job, *, figures: Iterable[Figure] = (), standing: Standing = _NO_DECISION) -> JobReply:
    """The reply to an order: a job, without figures as long as there are none."""
    policy = PolicyRef.model_validate(row.policy) if row.policy else None
    return JobReply(**dict(job_summary(row, standing)), policy=policy, figures=tuple(figures))


def job(session: Session, row: Job) -> JobReply:
    """A job with its figures and the overrides of its gate."""
    standing = gate_queries.standing(session, row)
    return new_job(row, figures=records.figures(session, row.id), standing=standing)


def event(row: Event) -> EventReply:
    """The reply about an event."""
    happened = JOB_EVENT.validate_python({"type": row.type, **row.data})
    return EventReply(id=row.id, attempt=row.attempt, created_at=row.created_at, event=happened)


def artifacts(session: Session, job_id: str) -> Page[ArtifactReply]:
    """A job's files; those that the gate withholds have no `url`.

    Raises:
        NotFound: the job does not exist.
    """
    withheld = not gate_queries.standing(session, jobs.get(session, job_id)).released
    rows = artifact_queries.of_job(session, job_id)
    return Page(data=tuple(_artifact(row, withheld=row.gated and withheld) for row in rows), has_more=False)


def _artifact(row: Artifact, *, withheld: bool) -> ArtifactReply:
    url = None if withheld else f"/jobs/{row.job_id}/artifacts/{quote(row.name)}"
    return ArtifactReply(name=row.name, bytes=row.bytes, sha256=row.sha256, media_type=row.media_type, url=url)


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
        screening=f"{here}/screening" if done and not isinstance(spec, CheckSpec) else None,
        answers=f"{here}/answers" if tuned else None,
    )
