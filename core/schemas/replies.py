"""What the HTTP API returns, shared by the server and the client.

Covers: pages, datasets, jobs, policies, events, files, and entries of the server's list. Not here: request bodies
(core.schemas.job), errors and health (core.schemas.problems), routes (api).
"""

from datetime import datetime
from typing import Generic, Literal, TypeVar

from pydantic import ConfigDict, Field

from core.schemas.base import Frozen
from core.schemas.data import ColumnMap, DatasetSummary
from core.schemas.evaluation import Figure
from core.schemas.events import JobError, JobEvent, Progress
from core.schemas.gate import GateReply
from core.schemas.job import CheckSpec, DatasetId, JobId, JobSpec, ScreenSpec
from core.schemas.judges import JudgeProtocol
from core.schemas.modelcheck import ModelCheck
from core.schemas.models import Template
from core.schemas.policy import Policy, PolicyRef
from core.schemas.prompts import Layout, PromptFileSummary
from core.schemas.quality import Domain
from core.schemas.state import Stage, Status

Item = TypeVar("Item")


class Page(Frozen, Generic[Item]):
    """One page of a list."""

    model_config = ConfigDict(json_schema_extra={"description": "One page of a list."})

    object: Literal["list"] = "list"
    """Always `list`, as in OpenAI's API."""
    data: tuple[Item, ...]
    """The items, in the order that the endpoint documents."""
    has_more: bool
    """Whether there are more items; request them with `after` set to the id of the last item."""


class DatasetReply(Frozen):
    """An uploaded file of conversations that passed validation."""

    id: DatasetId
    """Id of the dataset; the same bytes with the same column map have the same id."""
    name: str = Field(examples=["support.jsonl"])
    """Name given at the first upload, or the file name."""
    sha256: str = Field(examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])
    """SHA-256 of the uploaded bytes, in hex."""
    bytes: int = Field(examples=[48_213])
    """Size of the file in bytes."""
    columns: ColumnMap | None
    """Column map given at upload; null if the columns have known names."""
    summary: DatasetSummary
    """Row counts and formats found by validation."""
    created_at: datetime
    """Time of the first upload."""


class JobLinks(Frozen):
    """Paths on this server to the rest of a job. Links to files are null until the job has succeeded."""

    job: str
    """Path of this job."""
    events: str
    """Path of the events of the job."""
    cancel: str
    """Path to post to in order to cancel the job."""
    artifacts: str
    """Path of the list of the job's files."""
    adapter: str | None
    """Path of the adapter as one archive; null while the gate withholds it, and for a job with the method `full`."""
    model: str | None = None
    """Path of the whole model as one archive, for a job with the method `full`; null while the gate withholds it."""
    report: str | None
    """Path of the security report."""
    robustness: str | None
    """Path of the robustness map."""
    signed_report: str | None = None
    """Path of the signed report, an in-toto statement over every file."""
    screening: str | None = None
    """Path of the findings in the data."""
    answers: str | None
    """Path of every answer of every model to every prompt, as JSONL."""


class JobSummary(Frozen):
    """A job as lists show it."""

    id: JobId
    """Id of the job."""
    status: Status = Field(examples=["running"])
    """Status of the job; `succeeded`, `failed` and `cancelled` are final."""
    stage: Stage | None = Field(examples=["training"])
    """The current or last stage; null before the first one."""
    progress: Progress | None
    """Progress of the job; null before the first stage."""
    error: JobError | None
    """Why the job failed; in a queued job, why its last attempt ended."""
    attempt: int
    """How many times a worker has started the job."""
    cancel_requested_at: datetime | None
    """Time of the request to cancel the job; null without one."""
    created_at: datetime
    """Time at which the job was created."""
    updated_at: datetime
    """Time of the last change."""
    started_at: datetime | None
    """Time at which a worker first started the job; null before that."""
    finished_at: datetime | None
    """Time at which the job reached a final status; null before that."""
    project: str = Field(examples=["default"])
    """Project of the API key that created the job."""
    spec: JobSpec | ScreenSpec | CheckSpec
    """The order, with every default filled in."""
    gate: GateReply | None
    """Decision of the gate; null until the job has succeeded, and if nothing was trained."""
    links: JobLinks
    """Paths on this server to the rest of the job."""


class JobReply(JobSummary):
    """A job with the figures measured so far."""

    policy: PolicyRef | None
    """The policy of the job, fixed when the job was created."""
    figures: tuple[Figure, ...]
    """Security, over-refusal and task figures of every run measured so far."""


class PolicyReply(Frozen):
    """One version of a project's policy."""

    project: str = Field(examples=["default"])
    """Name of the project."""
    version: int = Field(examples=[3])
    """Number of the version, counted from 1; 0 is the built-in policy of a project that has set none."""
    policy: Policy
    """The rules of this version."""
    key_id: str | None
    """Id of the API key that set this version; null for the built-in policy."""
    created_at: datetime | None
    """Time at which this version was set; null for the built-in policy."""


class EventReply(Frozen):
    """An event of a job."""

    id: int = Field(examples=[17])
    """Number of the event, which grows with time; use it as `after` in the next request."""
    attempt: int
    """The attempt that the event belongs to."""
    created_at: datetime
    """Time of the event."""
    event: JobEvent
    """The event itself; its `type` names its kind."""


class ArtifactReply(Frozen):
    """A file of a finished job."""

    name: str = Field(examples=["adapter.tar"])
    """Path of the file among the job's files."""
    bytes: int = Field(examples=[614_400])
    """Size of the file in bytes."""
    sha256: str = Field(examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])
    """SHA-256 of the file, in hex."""
    media_type: str = Field(examples=["application/x-tar"])
    """Content type of the file."""
    url: str | None = Field(examples=["/jobs/job_0f1e2d3c4b5a69788796a5b4/artifacts/adapter.tar"])
    """Path of the file on this server; null while the gate withholds it."""


class ModelReply(Frozen):
    """A base model that jobs may name."""

    name: str = Field(examples=["testbed"])
    """Name of the model, the `base_model` of a job."""
    description: str
    """A sentence about the model."""
    learning_rate: float = Field(examples=[2e-4])
    """Standard learning rate of a job that names none."""
    source: Literal["folder", "hub", "gguf"]
    """`folder` or `gguf` if the model is on the server's disk, `hub` if it is on the Hugging Face hub."""
    hub_id: str | None
    """Id of the model on the hub; null for a folder."""
    revision: str | None
    """Commit of the hub repository; null for a folder."""
    chat_template: Template = "own"
    """`own` if the tokenizer has a chat template, `plain` if securetune's plain template is used."""
    unaligned_base: bool = False
    """Whether the model that it was aligned from is listed; the safeguard `project_to_safe` needs it."""
    usable: bool
    """Whether a job may use the model now."""
    problem: str | None
    """Why the model is not usable; null if it is."""


class ModelCheckReply(Frozen):
    """The newest check of a base model, with the job that measured it."""

    job_id: JobId
    """Id of the job that measured it."""
    measured_at: datetime
    """Time at which the job succeeded."""
    check: ModelCheck
    """What was measured and estimated."""


class PromptSetReply(Frozen):
    """A prompt set that jobs may name in `security.prompts`: uploaded, or in the server's list."""

    id: str = Field(examples=["ps_5b1f0c9a7e3d2b4c6d8e9f01"])
    """Id of an uploaded set, which the same bytes with the same layout share; name of a listed set."""
    name: str = Field(examples=["behaviours.csv"])
    """Name given at the first upload, the file name, or the name in the list."""
    source: Literal["upload", "file", "hub"]
    """`upload` if the set was uploaded; `file` or `hub` if it is listed, on the server's disk or on the hub."""
    layout: Layout
    """How the columns of the file are named."""
    description: str = ""
    """A sentence about a listed set."""
    sha256: str | None = None
    """SHA-256 of the uploaded bytes, in hex; null for a listed set."""
    bytes: int | None = None
    """Size of the uploaded file in bytes; null for a listed set."""
    summary: PromptFileSummary | None = None
    """Prompt counts of an uploaded set; null for a listed set, which is read when a job needs it."""
    created_at: datetime | None = None
    """Time of the first upload; null for a listed set."""
    hub_id: str | None = None
    """Id of the dataset on the hub; null if the set is not from there."""
    revision: str | None = None
    """Commit of the hub repository; null if the set is not from there."""
    file: str | None = None
    """Name of the file in the hub repository; null if the set is not from there."""


class JudgeReply(Frozen):
    """A judge model that jobs may name in `security.judges`. The judge `rules` needs none."""

    name: str = Field(examples=["house"])
    """Name of the judge model, the `model` of a judge."""
    description: str
    """A sentence about the judge model."""
    protocol: JudgeProtocol
    """How the judge model is prompted and answers."""
    kinds: tuple[str, ...] = Field(examples=[["rubric", "strongreject"]])
    """Kinds of judge that may use the model."""
    source: Literal["folder", "hub", "gguf", "endpoint"]
    """`endpoint` if another server runs the model; otherwise the worker loads it from one of the others."""
    model: str | None
    """Name of the model on the hub or at the other server; null for a folder."""
    revision: str | None
    """Commit of the hub repository; null if the model is not from there."""


class BenchmarkReply(Frozen):
    """A benchmark that jobs may name in `quality.tasks`."""

    name: str = Field(examples=["college-medicine"])
    """Name of the benchmark, the `benchmark` of a multiple-choice task."""
    description: str
    """A sentence about the benchmark."""
    domain: Domain
    """Domain of the benchmark; jobs of this domain that name no tasks are measured on it."""
    source: Literal["file", "hub"]
    """`file` if the questions are on the server's disk, `hub` if they are on the Hugging Face hub."""
    hub_id: str | None
    """Id of the dataset on the hub; null for a file."""
    revision: str | None
    """Commit of the hub repository; null for a file."""
    file: str | None
    """Name of the file in the hub repository; null for a file on disk."""
