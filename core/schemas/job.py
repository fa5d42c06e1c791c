"""A job as its user orders it, and as the training process receives it.

Covers: JobSpec (the body of `POST /jobs`), Assignment and where its files are. Not here: what comes out
(core.schemas.results).
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from core.schemas.base import Frozen
from core.schemas.data import ColumnMap, DatasetSummary
from core.schemas.judges import JudgeEntry
from core.schemas.policy import PolicyChange, PolicyRef
from core.schemas.prompts import HubFileSource, Layout, PromptFileSource
from core.schemas.quality import BenchmarkEntry, QualitySpec
from core.schemas.screening import ScreeningPolicy
from core.schemas.security import SecuritySpec
from core.schemas.strategy import Mapped, MlLrStrategy, Strategy
from core.schemas.training import TrainingSpec

BASE_RUN = "base"
JobId = Annotated[str, Field(pattern=r"^job_[0-9a-f]{24}$", examples=["job_0f1e2d3c4b5a69788796a5b4"])]
DatasetId = Annotated[str, Field(pattern=r"^ds_[0-9a-f]{24}$", examples=["ds_5b1f0c9a7e3d2b4c6d8e9f01"])]


class JobSpec(Frozen):
    """What to tune, on what, how, and how to check it. `base_model` and `dataset` are enough."""

    kind: Literal["tune"] = "tune"
    """A tuning; `POST /datasets/{id}/screen` orders a screening by itself."""
    base_model: str = Field(min_length=1, max_length=200, examples=["testbed"])
    """Name of an allowed base model; `GET /models` lists them. No path and no hub id is taken."""
    dataset: DatasetId
    """Training data, uploaded before with `POST /datasets`."""
    validation_dataset: DatasetId | None = None
    """Data for the task figures; a part of `dataset` is held out when this is null."""
    training: TrainingSpec = TrainingSpec()
    """Length, rates and shape of the training run."""
    strategy: Strategy = MlLrStrategy()
    """How learning rates are given to modules."""
    security: SecuritySpec = SecuritySpec()
    """How the model is attacked and judged, before and after."""
    quality: QualitySpec = QualitySpec()
    """How task performance is measured, before and after."""
    policy: PolicyChange | None = None
    """Rules for this job in place of its project's policy: stricter, or looser as far as the policy lets it."""
    compare: tuple[Strategy, ...] = Field(default=(), max_length=8)
    """Strategies also trained on the same data and seed, as baselines; their figures are reported side by side."""

    @property
    def runs(self) -> tuple[Strategy, ...]:
        """The job's strategy, then its baselines."""
        return (self.strategy, *self.compare)

    @model_validator(mode="after")
    def _distinct_labels(self) -> Self:
        labels = [BASE_RUN, *(run.label for run in self.runs)]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"two arms are called {label!r}: give each strategy a label of its own")
        return self

    @model_validator(mode="after")
    def _no_noise_on_packed_weights(self) -> Self:
        noisy = [run for run in self.runs if isinstance(run, Mapped) and run.analysis.perturbation.kind == "noise"]
        if noisy and self.training.method == "qlora":
            raise ValueError(
                "qlora keeps the base in 4-bit weights, which noise cannot be added to: choose another "
                "perturbation for the analysis"
            )
        return self


class ScreenSpec(Frozen):
    """A screening by itself, as it is stored: nothing is trained."""

    kind: Literal["screen"] = "screen"
    """An order that trains nothing."""
    dataset: DatasetId
    """The dataset."""
    base_model: str | None = None
    """The model that is asked about the rows."""
    screening: ScreeningPolicy
    """What is looked for."""

    @model_validator(mode="after")
    def _some_checks_need_a_model(self) -> Self:
        if self.screening.model_checks and self.base_model is None:
            needing = " and ".join(self.screening.model_checks)
            raise ValueError(f"{needing} runs the base model, and the order names none: name a base_model")
        return self


JobOrder = JobSpec | ScreenSpec
"""What a job may be: a tuning, or a screening by itself."""


def read_order(stored: Mapping[str, object]) -> JobOrder:
    """An order as it is stored.

    Raises:
        ValidationError: it is from another version.
    """
    return (ScreenSpec if stored.get("kind") == "screen" else JobSpec).model_validate(stored)


class DatasetRef(Frozen):
    """A dataset as the training process needs it: where its bytes are and how to read them."""

    id: DatasetId
    """The dataset."""
    key: str
    """Key of the uploaded file in the artifact store."""
    sha256: str
    """Digest of the uploaded file."""
    columns: ColumnMap | None
    """Columns named at upload."""
    summary: DatasetSummary
    """What validation found."""


class UploadedFile(Frozen):
    """A file that was uploaded."""

    kind: Literal["upload"] = "upload"
    """An upload."""
    key: str
    """Key of the file in the artifact store."""
    sha256: str
    """Digest of the file."""


class PromptFile(Frozen):
    """A chosen set of prompts as the training process needs it: where its file is and how to read it."""

    name: str
    """What messages and reports call it."""
    layout: Layout
    """How its columns are named."""
    source: Annotated[UploadedFile | PromptFileSource | HubFileSource, Field(discriminator="kind")]
    """Where the file is: uploaded, or where the server's list says."""


class Assignment(Frozen):
    """All that the training process is told: it reaches no database and no queue."""

    job_id: JobId
    """The job."""
    attempt: int
    """The fencing number: every artifact path carries it."""
    spec: JobSpec
    """What was ordered."""
    dataset: DatasetRef
    """Training data."""
    validation: DatasetRef | None
    """Validation data, if it was named."""
    judges: tuple[JudgeEntry, ...] = ()
    """The judge models that the spec names, from the server's list."""
    benchmarks: tuple[BenchmarkEntry, ...] = ()
    """Every benchmark in the server's list."""
    harmful: PromptFile | None = None
    """Harmful prompts that are reported on; null: those of the base model, or the built-in ones."""
    safe: PromptFile | None = None
    """Safe look-alikes, in the same way."""
    policy: PolicyRef = PolicyRef()
    """The rules that data and adapter are held to."""


class ScreenAssignment(Frozen):
    """All that the training process is told of a screening by itself."""

    job_id: JobId
    """The job."""
    attempt: int
    """The fencing number: every artifact path carries it."""
    spec: ScreenSpec
    """What was ordered."""
    dataset: DatasetRef
    """The data."""
