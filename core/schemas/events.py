"""Events that a running job reports: a closed union, written as one JSON line each.

Covers: the events of the pipeline and those of the service. Not here: how they are stored (worker.recorder).
"""

from typing import Annotated, Literal, TypeVar

from pydantic import Field, TypeAdapter

from core.schemas.base import Frozen
from core.schemas.evaluation import Figure
from core.schemas.gate import GateOutcome, GateReason
from core.schemas.speeds import ModelSpeeds
from core.schemas.state import Stage

_Name = TypeVar("_Name")
EventType = Annotated[_Name, Field(description="Type of the event.")]
StageRun = Annotated[
    str | None, Field(description="Label of the run that the stage belongs to; null for stages of the whole job.")
]


class Progress(Frozen):
    """How far the job is. Only the newest one is stored, with the job."""

    type: EventType[Literal["progress"]] = "progress"
    stage: Stage
    """The stage that is running."""
    run: StageRun = None
    fraction: float = Field(ge=0, le=1)
    """Completed share of the whole job, 0 to 1."""
    message: str
    """The progress within the stage in words, such as `step 120 of 280`."""


class StageStarted(Frozen):
    """A stage has started."""

    type: EventType[Literal["stage_started"]] = "stage_started"
    stage: Stage
    """The stage that started."""
    run: StageRun = None


class StageFinished(Frozen):
    """A stage has finished and its result is stored."""

    type: EventType[Literal["stage_finished"]] = "stage_finished"
    stage: Stage
    """The stage that finished."""
    run: StageRun = None
    seconds: float
    """Duration of the stage in seconds."""
    reused: bool
    """Whether stored results were used, at least in part: those of an interrupted attempt, or of another job with the
    same inputs."""


class Metrics(Frozen):
    """A logged training step: one of at most 500 of a run, or one at which the validation loss was measured."""

    type: EventType[Literal["metrics"]] = "metrics"
    run: str
    """Label of the run that is trained."""
    step: int
    """Number of the optimizer step, from 1."""
    total_steps: int
    """Number of optimizer steps of the whole training."""
    loss: float
    """Mean loss over the step's labelled tokens, nats per token."""
    learning_rate: float
    """Standard learning rate at this step."""
    validation_loss: float | None = None
    """Mean loss over the validation rows after this step, nats per token; null if not measured at this step."""


class Figures(Frozen):
    """The figures of one model have been computed."""

    type: EventType[Literal["figures"]] = "figures"
    figures: tuple[Figure, ...]
    """All figures of the model."""


class Warned(Frozen):
    """Something that the user should know, although the job continues."""

    type: EventType[Literal["warning"]] = "warning"
    code: str
    """Stable code of the warning, for programs."""
    message: str
    """What happened, what it means and what can be done."""


class Screened(Frozen):
    """The training data has been screened."""

    type: EventType[Literal["screened"]] = "screened"
    rows: int
    """Number of rows that were screened."""
    flagged: dict[str, int]
    """Number of flagged rows, by check."""
    lines: dict[str, tuple[int, ...]] = {}
    """Line numbers of the first 20 flagged rows, by check. The file `screening.json` lists all of them."""
    dropped: int
    """Number of rows that are left out of the training."""
    triggers: tuple[str, ...] = ()
    """Phrases that decide the answer: planted triggers, or designs that look like one."""


class GateDecided(Frozen):
    """The gate has decided on a run."""

    type: EventType[Literal["gate"]] = "gate"
    run: str
    """Label of the run. The first decision is on the job's own run, whose adapter is offered for download."""
    outcome: GateOutcome
    """The decision of the gate."""
    reasons: tuple[GateReason, ...]
    """The reasons for the decision."""


class SpeedsMeasured(ModelSpeeds):
    """How fast the work of stages was done. Estimates of later jobs use it; stored results of earlier ones add none."""

    type: EventType[Literal["speeds"]] = "speeds"


PipelineEvent = (
    Progress | StageStarted | StageFinished | SpeedsMeasured | Metrics | Figures | Warned | Screened | GateDecided
)


class StatusChanged(Frozen):
    """The job's status has changed, or an attempt has ended."""

    type: EventType[Literal["status"]] = "status"
    status: Literal["queued", "running", "cancelling", "interrupted", "succeeded", "failed", "cancelled"]
    """The new status. After `interrupted` the job is queued again."""
    message: str
    """Why the status changed."""
    code: str | None = None
    """Stable code of the error; null if there was none."""


class GateOverridden(Frozen):
    """A user with the right to override released what the gate withheld."""

    type: EventType[Literal["gate_overridden"]] = "gate_overridden"
    key_id: str
    """Id of the API key that made the request."""
    key_name: str
    """Name of that API key."""
    reason: str
    """The reason that the user gave."""


JobEvent = PipelineEvent | StatusChanged | GateOverridden
JOB_EVENT: TypeAdapter[JobEvent] = TypeAdapter(Annotated[JobEvent, Field(discriminator="type")])


class JobError(Frozen):
    """Why a job failed."""

    code: str
    """Stable code of the error, for programs."""
    message: str
    """What happened and what to do about it."""
    param: str | None = None
    """The field of the specification that caused the error; null if none did."""
