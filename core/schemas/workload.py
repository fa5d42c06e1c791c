"""The work of a job, counted before anything is computed by the model: rows, tokens, steps, answers.

Not here: how it is counted (core.pipeline.workload), how long it takes (core.schemas.estimate).
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from core.schemas.base import Frozen
from core.schemas.events import Warned
from core.schemas.job import JobInputs
from core.schemas.memory import ModelShape
from core.schemas.models import BaseModelEntry
from core.schemas.speeds import Work, WorkMethod
from core.schemas.state import Stage


class PlannedWork(Frozen):
    """Work of one kind in one stage; `StageSpeed` explains calls and amount."""

    stage: Stage
    """The stage."""
    run: str | None = None
    """Label of the run that the stage belongs to; null for stages of the whole job."""
    work: Work
    """Kind of work."""
    calls: int = Field(ge=1)
    """Number of calls."""
    amount: float = Field(gt=0)
    """Size of the work."""
    method: WorkMethod | None = None
    """The training method of `train`, the engine of `answer`; null for other kinds."""


class RunSize(Frozen):
    """The size of one training run."""

    run: str
    """Label of the run."""
    rows: int
    """Number of rows in tokens that are trained on, with those that safeguards add."""
    steps: int
    """Number of optimizer steps, if no early stopping ends the run before."""
    tokens: int
    """Number of tokens that the model reads in all steps, with padding."""


class DataSize(Frozen):
    """The size of a job's data in the tokens of its base model.

    Rows that screening will drop are counted, because the estimate does not screen.
    """

    rows: int
    """Number of rows in the dataset."""
    all_rows: bool
    """Whether all rows were tokenised. Of large files only the beginning is, and the rest is assumed to be like it."""
    training_rows: int
    """Number of rows in tokens that are trained on."""
    validation_rows: int
    """Number of validation rows in tokens, held out or from the validation dataset."""
    tokens: int
    """Number of tokens in the training rows, without padding."""
    trained_tokens: int
    """Number of these that are trained on."""
    longest: int
    """Number of tokens of the longest training row, after it is cut."""
    truncated_rows: int
    """Number of training and validation rows that are cut at `max_length`."""
    dropped_rows: int
    """Number of training and validation rows that are left out, because their prompt alone fills `max_length`."""
    rejected_rows: int
    """Number of rows that the job would fail on. `GET /datasets/{id}/preview` lists them."""


class Workload(Frozen):
    """The work of a job."""

    data: DataSize
    """The data in tokens."""
    max_length: int
    """Longest row in tokens: that of the order, or the model's context length if it is shorter."""
    runs: tuple[RunSize, ...]
    """Each training run."""
    answers: int
    """Number of answers to attacks and look-alikes that each model generates."""
    work: tuple[PlannedWork, ...]
    """All work, in the order of the stages."""
    shape: ModelShape | None
    """Sizes of the model; null if its weights are not on this machine, or their files lack a size."""
    warnings: tuple[Warned, ...]
    """What the job would warn about, judged by the rows that were tokenised."""


class WorkloadOrder(Frozen):
    """What the process that counts a job's work gets."""

    kind: Literal["workload"] = "workload"
    """Always `workload`."""
    inputs: JobInputs
    """The checked order, with the files that it names."""
    store: Path
    """Folder of the artifact store."""
    max_rows: int
    """Largest number of rows that the server accepts in a dataset."""
    entry: BaseModelEntry
    """The base model."""
