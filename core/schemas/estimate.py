"""The estimate of a job: its size, how long it will take stage by stage, and whether it fits into the worker's memory.

Not here: how it is computed (core.orders.durations), the counts that it is computed from (core.schemas.workload).
"""

from datetime import datetime

from core.schemas.base import Frozen
from core.schemas.events import Warned
from core.schemas.job import JobSpec
from core.schemas.memory import Memory
from core.schemas.speeds import Work
from core.schemas.state import Stage
from core.schemas.workload import DataSize, RunSize


class Seconds(Frozen):
    """A duration with its uncertainty, in seconds."""

    low: float
    """Shortest duration that the measured speeds make likely."""
    expected: float
    """Duration that is expected, in seconds."""
    high: float
    """Longest duration that the measured speeds make likely."""


class Basis(Frozen):
    """The measurement that the time of one kind of work is computed from."""

    work: Work
    """The kind of work."""
    stage: Stage
    """The stage in which it was measured; it may be another one with the same kind of work."""
    model: str
    """The model that was measured. The time of another model is scaled by the number of parameters."""
    device: str
    """The device that it was measured on."""
    job_id: str
    """Id of the job that measured it, which may be a check of the model."""
    measured_at: datetime
    """When it was measured."""


class StageEstimate(Frozen):
    """How long one stage will take."""

    stage: Stage
    """The stage that is estimated."""
    run: str | None
    """Label of the run that the stage belongs to; null for stages of the whole job."""
    seconds: Seconds | None
    """Duration of the stage; null if there is no measured speed for some of its work."""
    reusable: bool
    """Whether the results are shared between jobs. If an earlier job stored the same results, the stage takes no time,
    or less."""
    basis: tuple[Basis, ...]
    """What the duration is computed from, for each kind of work."""
    missing: tuple[Work, ...]
    """Kinds of work without any measured speed."""


class MemoryEstimate(Frozen):
    """The largest memory use of the training, and what the worker has."""

    needed: Memory
    """Memory that the training needs, in bytes, by what uses it."""
    available_bytes: int | None
    """Memory of the worker's device in bytes; null if no worker has measured a speed yet."""
    fits: bool | None
    """Whether the training needs at most 90 % of it; null if it is not known."""


class Estimate(Frozen):
    """What a job will cost. Nothing is stored, and no job is made."""

    spec: JobSpec
    """The order with every default filled in."""
    data: DataSize
    """The data in tokens of the base model."""
    max_length: int
    """Longest row in tokens: that of the order, or the model's context length if it is shorter."""
    runs: tuple[RunSize, ...]
    """Each training run: rows, steps and tokens."""
    answers: int
    """Number of answers to attacks and look-alikes of each measured model: the base model and every run."""
    stages: tuple[StageEstimate, ...]
    """Each stage, in order."""
    total: Seconds | None
    """Duration of the stages that have one, without waiting for a worker; null if none has one."""
    memory: MemoryEstimate | None
    """Memory of the training; null if the model's weights are not on this machine yet."""
    warnings: tuple[Warned, ...]
    """What makes the estimate uncertain, what to change, and what the job itself would warn about."""
