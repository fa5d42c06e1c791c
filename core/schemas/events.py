"""What comes back up from a running job: a closed union, one JSON line each.

Covers: the pipeline's events and the service's own. Not here: how they are recorded (worker.recorder).
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from core.schemas.base import Frozen
from core.schemas.gate import GateOutcome, GateReason
from core.schemas.results import Figure
from core.schemas.state import Stage


class Progress(Frozen):
    """How far the job is. Kept in the job's row only: the newest replaces the one before."""

    type: Literal["progress"] = "progress"
    """Kind of event."""
    stage: Stage
    """What is being done."""
    run: str | None = None
    """For which arm."""
    fraction: float = Field(ge=0, le=1)
    """Share of the whole job."""
    message: str
    """The same in words, such as `step 120 of 280`."""


class StageStarted(Frozen):
    """A stage begins."""

    type: Literal["stage_started"] = "stage_started"
    """Kind of event."""
    stage: Stage
    """Which."""
    run: str | None = None
    """For which arm."""


class StageFinished(Frozen):
    """A stage is done and its result is stored."""

    type: Literal["stage_finished"] = "stage_finished"
    """Kind of event."""
    stage: Stage
    """Which."""
    run: str | None = None
    """For which arm."""
    seconds: float
    """How long it took."""
    reused: bool
    """Whether stored results were taken, all or some: after an interruption, or those of the same base model."""


class Metrics(Frozen):
    """Training, at one logged step (500 of a run at most) or one where the validation loss was measured."""

    type: Literal["metrics"] = "metrics"
    """Kind of event."""
    run: str
    """Which arm."""
    step: int
    """From 1."""
    total_steps: int
    """Steps in all."""
    loss: float
    """Mean over the trained tokens, nats per token."""
    learning_rate: float
    """Standard rate."""
    validation_loss: float | None = None
    """Mean over the validation rows after this step, nats per token; null where it was not measured."""


class Figures(Frozen):
    """Figures are known."""

    type: Literal["figures"] = "figures"
    """Kind of event."""
    figures: tuple[Figure, ...]
    """All of one arm."""


class Warned(Frozen):
    """Something the user should know, though the job goes on."""

    type: Literal["warning"] = "warning"
    """Kind of event."""
    code: str
    """Stable code."""
    message: str
    """What happened and what it means."""


class Screened(Frozen):
    """The data was looked through."""

    type: Literal["screened"] = "screened"
    """Kind of event."""
    rows: int
    """Rows that were looked at."""
    flagged: dict[str, int]
    """How many rows each check found."""
    lines: dict[str, tuple[int, ...]] = {}
    """Lines of the first 20 of them; the file `screening.json` has all."""
    dropped: int
    """Rows that are left out of the training."""
    triggers: tuple[str, ...] = ()
    """Phrases that look planted."""


class GateDecided(Frozen):
    """The gate has decided about an arm."""

    type: Literal["gate"] = "gate"
    """Kind of event."""
    run: str
    """Which arm; the first one's adapter is the job's."""
    outcome: GateOutcome
    """What was decided."""
    reasons: tuple[GateReason, ...]
    """Why."""


PipelineEvent = Progress | StageStarted | StageFinished | Metrics | Figures | Warned | Screened | GateDecided


class StatusChanged(Frozen):
    """The job's status changed, or an attempt at it ended."""

    type: Literal["status"] = "status"
    """Kind of event."""
    status: Literal["queued", "running", "cancelling", "interrupted", "succeeded", "failed", "cancelled"]
    """What it is now; `interrupted` goes back to the queue."""
    message: str
    """Why."""
    code: str | None = None
    """Stable code where something went wrong."""


class GateOverridden(Frozen):
    """Somebody with the right to do so let an adapter out that the gate withheld."""

    type: Literal["gate_overridden"] = "gate_overridden"
    """Kind of event."""
    key_id: str
    """The API key that asked for it."""
    key_name: str
    """What that key is called."""
    reason: str
    """Why, in their words."""


JobEvent = PipelineEvent | StatusChanged | GateOverridden
JOB_EVENT: TypeAdapter[JobEvent] = TypeAdapter(Annotated[JobEvent, Field(discriminator="type")])


class JobError(Frozen):
    """Why a job failed."""

    code: str
    """Stable, for programs."""
    message: str
    """What happened and what to do."""
    param: str | None = None
    """The field of the spec at fault, if one is."""
