"""A job as its user orders it, and as the training process receives it.

Covers: JobSpec (the body of `POST /jobs`), orders that screen data or check a model, assignments and where their
files are. Not here: results
(core.schemas.results), rules that need the server's list (core.orders.check).
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from core.schemas.analysis import AnalysisSpec
from core.schemas.base import Frozen
from core.schemas.data import ColumnMap, DatasetSummary
from core.schemas.judges import JudgeEntry
from core.schemas.policy import PolicyRef
from core.schemas.policy_change import PolicyChange
from core.schemas.prompts import HubFileSource, Layout, PromptFileSource
from core.schemas.quality import BenchmarkEntry, QualitySpec
from core.schemas.screening import ScreeningPolicy
from core.schemas.security import SecuritySpec
from core.schemas.strategy import RECOMMENDED, Mapped, OrderedStrategy, RepairStrategy, Strategy, analysis_of
from core.schemas.training import TrainingSpec

BASE_RUN = "base"
JobId = Annotated[str, Field(pattern=r"^job_[0-9a-f]{24}$", examples=["job_0f1e2d3c4b5a69788796a5b4"])]
DatasetId = Annotated[str, Field(pattern=r"^ds_[0-9a-f]{24}$", examples=["ds_5b1f0c9a7e3d2b4c6d8e9f01"])]
Lengths = Annotated[tuple[Annotated[int, Field(ge=16, le=131_072)], ...], Field(min_length=1, max_length=6)]
BatchSizes = Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=1, max_length=6)]


class JobSpec(Frozen):
    """A base model to tune, the data, the training and the evaluation. Only `base_model` and `dataset` are required."""

    kind: Literal["tune"] = "tune"
    """Always `tune`; `POST /datasets/{id}/screen` creates jobs that only screen."""
    base_model: str = Field(min_length=1, max_length=200, examples=["testbed"])
    """Name of an allowed base model, as `GET /models` lists them; paths and hub ids are rejected."""
    dataset: DatasetId
    """Id of the training data, uploaded with `POST /datasets`."""
    validation_dataset: DatasetId | None = None
    """Id of the data for the task figures; if null, a part of `dataset` is held out."""
    training: TrainingSpec = TrainingSpec()
    """Length, learning rates and adapter of the training run."""
    strategy: OrderedStrategy = RECOMMENDED
    """How each module gets its learning rate, and with which safeguards. `recommended`, the default, is what the
    project's experiments support; the stored order has it in full."""
    security: SecuritySpec = SecuritySpec()
    """How the model is attacked and judged, before and after training."""
    quality: QualitySpec = QualitySpec()
    """How task performance is measured, before and after training."""
    policy: PolicyChange | None = None
    """Changes of the policy for this job: stricter without limit, looser only within the policy's `job_limits`."""
    compare: tuple[OrderedStrategy, ...] = Field(default=(), max_length=8)
    """At most 8 baselines: strategies that are also trained, on the same data with the same seed, for comparison."""
    repairs: JobId | None = None
    """Id of the job whose withheld weights this job repairs, as `POST /jobs/{id}/repair` orders it. Every run then is a
    `repair`, and the job offers the one that the gate releases, instead of the first."""

    @property
    def runs(self) -> tuple[Strategy, ...]:
        """The job's strategy, then its baselines."""
        return (self.strategy, *self.compare)

    def training_of(self, run: Strategy) -> TrainingSpec:
        """The training settings of a run."""
        return self.training.for_repair(run.steps) if isinstance(run, RepairStrategy) else self.training

    @property
    def analyses(self) -> tuple[AnalysisSpec, ...]:
        """Each different analysis that a run needs, once."""
        return tuple(dict.fromkeys(analysis for run in self.runs if (analysis := analysis_of(run))))

    @model_validator(mode="after")
    def _distinct_labels(self) -> Self:
        labels = [BASE_RUN, *(run.label for run in self.runs)]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"two runs have the label {label!r}: give each strategy a different label")
        return self

    @model_validator(mode="after")
    def _repairs_only(self) -> Self:
        repairing = [run.kind == "repair" for run in self.runs]
        if self.repairs is None and any(repairing):
            raise ValueError("a repair begins with the weights of another job: use POST /jobs/{id}/repair")
        if self.repairs is not None and not all(repairing):
            raise ValueError("every run of a job that repairs another one is a repair")
        return self

    @model_validator(mode="after")
    def _no_noise_on_packed_weights(self) -> Self:
        noisy = [run for run in self.runs if isinstance(run, Mapped) and run.analysis.perturbation.kind == "noise"]
        if noisy and self.training.method == "qlora":
            raise ValueError(
                "noise cannot be added to the 4-bit weights of qlora: choose another perturbation for the analysis"
            )
        return self


class ScreenSpec(Frozen):
    """A stored order that screens a dataset without training."""

    kind: Literal["screen"] = "screen"
    """Always `screen`, for orders that only screen."""
    dataset: DatasetId
    """Id of the dataset to screen."""
    base_model: str | None = None
    """Name of the base model for the checks that need one."""
    screening: ScreeningPolicy
    """The checks and their actions."""

    @model_validator(mode="after")
    def _some_checks_need_a_model(self) -> Self:
        if self.screening.model_checks and self.base_model is None:
            needing = " and ".join(self.screening.model_checks)
            raise ValueError(f"{needing} runs the base model, and the order names none: name a base_model")
        return self


class CheckRequest(Frozen):
    """What a check of a base model measures. Every field is optional."""

    lengths: Lengths = (256, 1024)
    """Lengths of rows in tokens that memory is estimated for: 1 to 6 numbers of 16 to 131,072. Lengths beyond the
    model's context are cut to it."""
    batch_sizes: BatchSizes = (1, 4, 16)
    """Rows of one forward pass that memory is estimated for: 1 to 6 numbers of 1 to 4096."""
    lora_rank: int = Field(default=16, ge=1, le=256)
    """Rank of the adapter, 1 to 256."""
    prompts: int = Field(default=50, ge=8, le=1000)
    """Largest number of probe prompts of each kind, harmful and safe, that the model answers; 8 to 1000."""


class CheckSpec(CheckRequest):
    """A stored order that checks a base model without training it."""

    kind: Literal["check"] = "check"
    """Always `check`, for orders that only check a model."""
    base_model: str = Field(min_length=1, max_length=200)
    """Name of the base model."""


JobOrder = JobSpec | ScreenSpec | CheckSpec
"""An order: to tune a model, only to screen a dataset, or only to check a model."""


def read_order(stored: Mapping[str, object]) -> JobOrder:
    """Read a stored order.

    Raises:
        ValidationError: the order was stored by another version.
    """
    kinds: dict[object, type[JobOrder]] = {"screen": ScreenSpec, "check": CheckSpec}
    return kinds.get(stored.get("kind"), JobSpec).model_validate(stored)


class DatasetRef(Frozen):
    """A dataset as the training process needs it: the stored file and how to read it."""

    id: DatasetId
    """Id of the dataset."""
    key: str
    """Key of the uploaded file in the artifact store."""
    sha256: str
    """SHA-256 of the uploaded file, in hex."""
    columns: ColumnMap | None
    """Column map given at upload; null if the columns have known names."""
    summary: DatasetSummary
    """Row counts and formats found by validation."""


class UploadedFile(Frozen):
    """An uploaded file in the artifact store."""

    kind: Literal["upload"] = "upload"
    """Always `upload`, for uploaded files."""
    key: str
    """Key of the file in the artifact store."""
    sha256: str
    """SHA-256 of the file, in hex."""


class PromptFile(Frozen):
    """A prompt set as the training process needs it: the file and how to read it."""

    name: str
    """Name of the set in messages and reports."""
    layout: Layout
    """How the columns of the file are named."""
    source: Annotated[UploadedFile | PromptFileSource | HubFileSource, Field(discriminator="kind")]
    """Where the file is: uploaded, or named by the server's list."""


class TrainedFile(Frozen):
    """A file of trained weights in the artifact store, or one that belongs to them."""

    key: str
    """Key of the file in the artifact store."""
    sha256: str
    """SHA-256 of the file, in hex."""


class JobInputs(Frozen):
    """An order that has been checked, with everything that it names."""

    spec: JobSpec
    """The order, with every default filled in."""
    dataset: DatasetRef
    """The training data."""
    validation: DatasetRef | None
    """The validation data; null if a part of the training data is held out."""
    judges: tuple[JudgeEntry, ...] = ()
    """The judge models that the spec names, from the server's list."""
    benchmarks: tuple[BenchmarkEntry, ...] = ()
    """Every benchmark in the server's list."""
    harmful: PromptFile | None = None
    """The harmful prompts of the attacks; null for those of the base model, or the built-in ones."""
    safe: PromptFile | None = None
    """The safe look-alikes; null for those of the base model, or the built-in ones."""
    policy: PolicyRef = PolicyRef()
    """The policy that the gate decides by."""
    repaired: tuple[TrainedFile, ...] = ()
    """The adapter or model that the job repairs, all files in one folder; empty for any other job."""


class Assignment(JobInputs):
    """Everything that the training process gets; it can reach neither database nor queue."""

    job_id: JobId
    """Id of the job."""
    attempt: int
    """Number of the attempt, which is part of every artifact key."""


class ScreenAssignment(Frozen):
    """Everything that the training process gets for a screening."""

    job_id: JobId
    """Id of the job."""
    attempt: int
    """Number of the attempt, which is part of every artifact key."""
    spec: ScreenSpec
    """The order, with every default filled in."""
    dataset: DatasetRef
    """The data to screen."""


class CheckAssignment(Frozen):
    """Everything that the training process gets for a check of a base model."""

    job_id: JobId
    """Id of the job."""
    attempt: int
    """Number of the attempt, which is part of every artifact key."""
    spec: CheckSpec
    """The order, with every default filled in."""


JobAssignment = Assignment | ScreenAssignment | CheckAssignment
"""What the training process gets for any kind of order."""
