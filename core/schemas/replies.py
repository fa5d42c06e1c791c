"""What the HTTP API answers, shared by the server that writes it and the client that reads it.

Covers: replies and the one shape of errors. Not here: request bodies (core.schemas.job), the routes (api).
"""

from datetime import datetime
from typing import Generic, Literal, TypeVar

from pydantic import ConfigDict

from core.schemas.base import Frozen
from core.schemas.data import ColumnMap, DatasetSummary, RowError
from core.schemas.events import JobError, JobEvent, Progress
from core.schemas.gate import GateReason, GateReply
from core.schemas.job import DatasetId, JobId, JobSpec, ScreenSpec
from core.schemas.judges import JudgeProtocol
from core.schemas.models import Template
from core.schemas.policy import Policy, PolicyRef
from core.schemas.prompts import Layout, PromptFileSummary
from core.schemas.quality import Domain
from core.schemas.results import Figure
from core.schemas.state import Stage, Status

Item = TypeVar("Item")
ErrorType = Literal[
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "conflict_error",
    "service_error",
]
PartState = Literal["up", "down", "not_migrated"]


class Page(Frozen, Generic[Item]):
    """One page of a list."""

    model_config = ConfigDict(json_schema_extra={"description": "One page of a list."})

    object: Literal["list"] = "list"
    """Always `list`."""
    data: tuple[Item, ...]
    """The items, in the order that the endpoint names."""
    has_more: bool
    """Whether there are more: ask again with `after` set to the id of the last item."""


class DatasetReply(Frozen):
    """A dataset: a file of conversations that passed validation."""

    id: DatasetId
    """What jobs call it. The same bytes with the same column map have the same id."""
    name: str
    """Name given at the first upload, or the file's own."""
    sha256: str
    """Digest of the uploaded bytes, in hex."""
    bytes: int
    """Size of the file."""
    columns: ColumnMap | None
    """Column map given at upload."""
    summary: DatasetSummary
    """What validation found."""
    created_at: datetime
    """When it was uploaded first."""


class JobLinks(Frozen):
    """Where the rest of a job is. What a job leaves behind is null until it has succeeded."""

    job: str
    """This job."""
    events: str
    """What happened so far."""
    cancel: str
    """Post here to cancel it."""
    artifacts: str
    """List of its files."""
    adapter: str | None
    """The adapter in one archive; null where the whole model was trained."""
    model: str | None = None
    """The whole model in one archive, after a job with the method `full`."""
    report: str | None
    """The security report."""
    robustness: str | None
    """The robustness map."""
    signed_report: str | None = None
    """The signed report: an in-toto statement over every file."""
    screening: str | None = None
    """What was found in the data."""
    answers: str | None
    """Every answer of every model to every prompt, as JSONL."""


class JobSummary(Frozen):
    """A job as lists show it."""

    id: JobId
    """The job."""
    status: Status
    """Where it is on its way; `succeeded`, `failed` and `cancelled` are final."""
    stage: Stage | None
    """What is being done, or was done last; null before the first stage."""
    progress: Progress | None
    """How far it is; null before the first stage."""
    error: JobError | None
    """Why it failed, or why its last attempt ended when it is queued again."""
    attempt: int
    """How many times a worker has taken it up."""
    cancel_requested_at: datetime | None
    """When somebody asked for it to be cancelled."""
    created_at: datetime
    """When it was ordered."""
    updated_at: datetime
    """When this last changed."""
    started_at: datetime | None
    """When a worker first took it up."""
    finished_at: datetime | None
    """When it ended."""
    project: str
    """The project of the key that ordered it."""
    spec: JobSpec | ScreenSpec
    """What was ordered, with every default filled in."""
    gate: GateReply | None
    """What the gate decided about the adapter, and whether it is handed out; null before the job has succeeded, and
    where nothing was trained."""
    links: JobLinks
    """Where the rest is, as paths on this server."""


class JobReply(JobSummary):
    """A job with the figures known so far."""

    policy: PolicyRef | None
    """The rules that data and adapter are held to, fixed when the job was ordered."""
    figures: tuple[Figure, ...]
    """Security, over-refusal and task figures of every arm that has been measured so far."""


class PolicyReply(Frozen):
    """One version of a project's policy."""

    project: str
    """The project."""
    version: int
    """Counts up with every change; 0 is the built-in policy, which holds where none was set."""
    policy: Policy
    """The rules."""
    key_id: str | None
    """The API key that set it; null for the built-in one."""
    created_at: datetime | None
    """When it was set; null for the built-in one."""


class EventReply(Frozen):
    """Something that happened to a job."""

    id: int
    """Grows with time; the `after` of the next request."""
    attempt: int
    """The attempt it belongs to."""
    created_at: datetime
    """When it happened."""
    event: JobEvent
    """What happened; its `type` says which kind it is."""


class ArtifactReply(Frozen):
    """A file that a finished job left."""

    name: str
    """Its path among the job's files."""
    bytes: int
    """Size."""
    sha256: str
    """Digest, in hex."""
    media_type: str
    """Content type."""
    url: str | None
    """Where to get it, as a path on this server; null when it has no address of its own."""


class ModelReply(Frozen):
    """A base model that jobs may name."""

    name: str
    """The `base_model` of a job."""
    description: str
    """A sentence about it."""
    learning_rate: float
    """Standard rate of a job that names none."""
    source: Literal["folder", "hub"]
    """Whether it lies on the server's disk or on the Hugging Face hub."""
    hub_id: str | None
    """Its id on the hub."""
    revision: str | None
    """The commit of the hub repository that is used."""
    chat_template: Template = "own"
    """Whether it is asked by its own chat template, or by securetune's plain one since it has none."""
    unaligned_base: bool = False
    """Whether the model that it was aligned from is known: the safeguard `project_to_safe` needs it."""
    usable: bool
    """Whether a job with it would be taken now."""
    problem: str | None
    """Why not."""


class PromptSetReply(Frozen):
    """A set of prompts that jobs may name in `security.prompts`: uploaded, or in the server's list."""

    id: str
    """What jobs call it. The same bytes with the same layout have the same id; a listed set is called by its name."""
    name: str
    """Name given at the first upload, the file's own, or the name in the list."""
    source: Literal["upload", "file", "hub"]
    """Whether it was uploaded, or is listed and lies on the server's disk or on the Hugging Face hub."""
    layout: Layout
    """How its columns are named."""
    description: str = ""
    """A sentence about it, where it is listed."""
    sha256: str | None = None
    """Digest of the uploaded bytes, in hex."""
    bytes: int | None = None
    """Size of the uploaded file."""
    summary: PromptFileSummary | None = None
    """What was found in the uploaded file; a listed one is read when a job needs it."""
    created_at: datetime | None = None
    """When it was uploaded first."""
    hub_id: str | None = None
    """The data set on the hub that a listed set is from."""
    revision: str | None = None
    """The commit of it that is used."""
    file: str | None = None
    """The file in it."""


class JudgeReply(Frozen):
    """A judge model that jobs may name in `security.judges`. The judge `rules` needs none."""

    name: str
    """The `model` of a judge."""
    description: str
    """A sentence about it."""
    protocol: JudgeProtocol
    """How it is asked and answers."""
    kinds: tuple[Literal["rubric", "strongreject", "classifier"], ...]
    """Kinds of judge that it may be."""
    source: Literal["folder", "hub", "endpoint"]
    """Whether the worker loads it from its disk or from the Hugging Face hub, or asks another server."""
    model: str | None
    """What it is called on the hub, or at the other server."""
    revision: str | None
    """The commit of the hub repository that is used."""


class BenchmarkReply(Frozen):
    """A benchmark that jobs may name in `quality.tasks`."""

    name: str
    """The `benchmark` of a task of multiple choice."""
    description: str
    """A sentence about it."""
    domain: Domain
    """Jobs of this domain that name no tasks are measured on it."""
    source: Literal["file", "hub"]
    """Whether it lies on the server's disk or on the Hugging Face hub."""
    hub_id: str | None
    """The data set on the hub that it is from."""
    revision: str | None
    """The commit of it that is used."""
    file: str | None
    """The file in it."""


class Health(Frozen):
    """The process answers."""

    status: Literal["ok"] = "ok"
    """Always `ok`."""


class Readiness(Frozen):
    """Whether every part that a job needs can be reached."""

    database: PartState
    """PostgreSQL, and whether its schema is the one that this version needs."""
    broker: PartState
    """Redis or Valkey."""

    @property
    def ready(self) -> bool:
        """True when every part is up."""
        return self.database == "up" and self.broker == "up"


class FieldProblem(Frozen):
    """One field of a request that cannot be taken."""

    param: str
    """Path of the field, such as `training.learning_rate`."""
    message: str
    """What is wrong with it."""


class ErrorBody(Frozen):
    """What went wrong and what to do."""

    message: str
    """For people."""
    type: ErrorType
    """Broad kind."""
    param: str | None
    """The field, part or parameter at fault, if one is."""
    code: str
    """Stable, for programs."""
    details: tuple[RowError | FieldProblem, ...] | None = None
    """Every refused row (the first 100) or field, where there is more than one thing to say."""
    count: int | None = None
    """How many rows were refused in all."""
    reasons: tuple[GateReason, ...] | None = None
    """Why the gate withholds an adapter."""
    readiness: Readiness | None = None
    """Which part is down; of `/readyz` only."""


class ErrorReply(Frozen):
    """The shape of every error."""

    error: ErrorBody
    """The error."""
