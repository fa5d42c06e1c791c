"""Measured speeds: how much work a model did on a device in how many seconds.

A job's training process measures them stage by stage, and `securetune models check` on a few rows. Estimates of jobs
are computed from them. Not here: measuring (core.meter), estimates (core.schemas.estimate).
"""

from datetime import datetime
from typing import Literal

from pydantic import Field

from core.schemas.base import Frozen
from core.schemas.state import Stage

Work = Literal[
    "load",
    "screen",
    "tokenise",
    "read",
    "answer",
    "answer_rows",
    "judge",
    "question",
    "harness",
    "analyse",
    "train",
    "other",
]
"""Kinds of work, with what `StageSpeed` counts as calls and as amount.

`load`: models, as both. `screen`: rows, and their characters. `tokenise`: rows, and their tokens. `read`:
rows that the model reads without learning from them, and their tokens. `answer` and `answer_rows`: answers to attacks
and look-alikes, and to validation rows, with the most tokens that the answers may have together. `train`: forward and
backward passes, and their tokens with padding. `analyse`: measurements of a robustness analysis, and the prompts and
rows that they read. `judge`, `question`, `harness`: verdicts of judges that are models, multiple-choice questions, and
questions of lm-evaluation-harness, each as both. `other`: what is left of a stage, 1 as both.
"""
WorkMethod = Literal["lora", "full", "qlora", "transformers", "vllm"]


class StageSpeed(Frozen):
    """Work of one kind in one stage, and the time that it took.

    The cost of a call has a fixed part and one that grows with the amount, so both are counted: the time of work with
    other proportions is between the two times that follow from the calls alone and from the amount alone.
    """

    stage: Stage
    """The stage in which the work was done."""
    work: Work
    """Kind of work that was done."""
    calls: int = Field(ge=1)
    """Number of calls, at least 1; what a call is depends on `work`."""
    amount: float = Field(gt=0)
    """Size of the work, above 0; the unit depends on `work`."""
    seconds: float = Field(ge=0)
    """Time that the work took, in seconds."""
    precision: str | None = Field(default=None, max_length=20, examples=["float32"])
    """Number format of the computation: `float32`, `bfloat16` or `nf4`; null if no model computed."""
    method: WorkMethod | None = None
    """How it was done: the training method of `train`, the engine of `answer`; null for other kinds."""


class ModelSpeeds(Frozen):
    """Speeds of one model on one device."""

    model: str
    """Name of the model in the server's list."""
    sha256: str
    """SHA-256 over the model's files, in hex, as in a report."""
    parameters: int = Field(ge=1)
    """Number of parameters of the model."""
    device: str = Field(max_length=200, examples=["CPU (AMD EPYC 9454), 8 threads"])
    """Name of the GPU, or of the CPU with the number of threads."""
    memory_bytes: int = Field(ge=1)
    """Memory of the GPU, or memory that the process may use on the machine, in bytes."""
    speeds: tuple[StageSpeed, ...]
    """What was measured, by stage and kind of work."""


class MeasuredSpeed(StageSpeed):
    """A stored speed, with where it comes from."""

    model: str
    """Name of the model."""
    parameters: int
    """Number of parameters of the model."""
    device: str
    """Name of the device."""
    memory_bytes: int
    """Memory of the device in bytes."""
    job_id: str
    """Id of the job that measured it, which may be a check of the model."""
    measured_at: datetime
    """When it was recorded."""
