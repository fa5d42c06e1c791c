"""How a model is trained: the `training` part of a job spec, and the plan that a strategy makes of it.

Not here: strategies' own options (core.schemas.strategy), the loop (core.training).
"""

from math import ceil
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from core.schemas.analysis import ProbeSpec
from core.schemas.base import Frozen
from core.schemas.data import Thinking, TrainedTurns

DEFAULT_EPOCHS = 3.0
"""Epochs of a run if the order names neither epochs nor steps."""
FULL_RATE_SHARE = 0.1
"""Learning rate of a full run as a share of an adapter's rate on the same model."""

Schedule = Literal["constant", "linear", "cosine"]
Method = Literal["lora", "full", "qlora"]
Precision = Literal["auto", "float32", "bfloat16"]
ModuleType = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9_]+$")]


class LoraSpec(Frozen):
    """Low-rank adaptation (Hu et al. 2021): each chosen module gets an update B A of small rank."""

    rank: int = Field(default=16, ge=1, le=256)
    """Rank of the update, 1 to 256. Serving engines often reject ranks above their limit (vLLM: 16 by default)."""
    alpha: int = Field(default=32, ge=1, le=4096)
    """Scale of the update, which is multiplied by alpha / rank; 1 to 4096."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout probability on the input of the update, from 0 to below 1."""
    targets: Literal["all"] | Annotated[tuple[ModuleType, ...], Field(min_length=1, max_length=64)] = "all"
    """Module types that are trained: `q`, `k`, `v`, `o`, `gate`, `up`, `down` or others of the model. `all` means
    all types except the routers of experts (`router`)."""


class TrainingSpec(Frozen):
    """Settings of a training run. All runs of a job, the strategy and its baselines, use the same."""

    method: Method = "lora"
    """What is trained: an adapter (`lora`), the modules' own weights (`full`, which results in a whole model), or
    an adapter on 4-bit base weights (`qlora`, which needs a CUDA GPU)."""
    epochs: float | None = Field(default=None, gt=0, le=100)
    """Passes over the training rows, above 0 and at most 100; 3 if neither this nor `steps` is given."""
    steps: int | None = Field(default=None, ge=1, le=1_000_000)
    """Number of optimizer steps, 1 to 1,000,000, instead of `epochs`."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Standard learning rate, which robust modules get, above 0 and at most 1. Null uses the base model's rate from
    `GET /models`, or a tenth of it if `method` is `full`."""
    batch_size: int = Field(default=16, ge=1, le=4096)
    """Number of rows in one optimizer step, 1 to 4096."""
    micro_batch_size: int | None = Field(default=None, ge=1, le=4096)
    """Number of rows in one forward pass, 1 to 4096. Smaller values need less memory and give the same gradient.
    Null uses the whole batch."""
    group_by_length: bool = False
    """Whether rows of similar length share a batch, which saves padding. The order of the batches is still shuffled."""
    precision: Precision = "auto"
    """Number format of the base weights and of everything computed with them: training, answers and all
    measurements. `auto` is bfloat16 on a GPU; on a CPU it is float32, unless the CPU has instructions for bfloat16, the
    model has 50 million parameters or more, and bfloat16 is at least 1.3 times as fast in a short self-test.
    `float32` and `bfloat16` are used on every device. Trained weights and optimizer are always float32."""
    max_length: int = Field(default=1024, ge=16, le=131_072)
    """Longest row in tokens, 16 to 131,072. Longer rows are cut; rows whose prompt alone fills it are dropped and
    counted."""
    thinking: Thinking = "train"
    """What happens to what the assistant thought before its answers: it is trained on (`train`), left out (`drop`), or
    fails the job (`reject`). If the chat template has no place for it, it is trained on in the answer,
    between `<think>` and `</think>`."""
    turns: TrainedTurns = "all"
    """Which assistant turns of a conversation are trained on: all of them, or only the last one."""
    lora: LoraSpec = LoraSpec()
    """Shape of the adapter. If `method` is `full`, only its `targets` apply."""
    schedule: Schedule = "cosine"
    """How the learning rate falls after the warm-up: not at all, linearly to 0, or along a half cosine to 0."""
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps in which the learning rate rises linearly from 0; 0 to below 1."""
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    """Decoupled weight decay of AdamW, 0 to 1."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient, above 0; larger gradients are scaled down to it."""
    validation_split: float = Field(default=0.1, gt=0, lt=1)
    """Share of rows held out for validation if the job names no validation dataset, at most 200 rows; above 0,
    below 1."""
    validate_every: int | None = Field(default=None, ge=1, le=1_000_000)
    """Steps between two measurements of the validation loss. Null measures it only after training. It does not
    affect the training unless `patience` is given."""
    patience: int | None = Field(default=None, ge=1, le=10_000)
    """Early stopping after this many measurements in a row without a lower validation loss; the best weights are
    kept. Null trains to the end and keeps the last weights."""
    checkpoint_every: int | None = Field(default=None, ge=1, le=1_000_000)
    """Steps between two checkpoints, from which an interrupted run resumes. Null saves one every ten minutes. A
    resumed run ends with the same weights as an uninterrupted one."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of the validation split, the order of rows, the adapter's initial weights and dropout."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("give either epochs or steps, not both")
        return self

    @model_validator(mode="after")
    def _patience_with_something_to_wait_for(self) -> Self:
        if self.patience is not None and self.validate_every is None:
            raise ValueError("patience counts validations: give validate_every too")
        return self

    def rate(self, of_model: float) -> float:
        """Return the standard learning rate on a model whose rate for adapters is `of_model`."""
        return self.learning_rate or of_model * (FULL_RATE_SHARE if self.method == "full" else 1.0)

    def for_probe(self, probe: ProbeSpec, *, seed: int, rows: int) -> Self:
        """Return the settings of a probe run of a robustness analysis on `rows` rows.

        It has at most as many steps as `probe` says, and never more than the job. Of the schedule, only the warm-up
        applies; validation is left out, and a step has at most `probe.step_rows` rows. `seed` decides the order of rows
        and the initial weights.
        """
        return self.model_copy(
            update={
                "steps": min(probe.steps, self.total_steps(rows)),
                "epochs": None,
                "batch_size": min(self.batch_size, probe.step_rows),
                "seed": seed,
                "schedule": "constant",
                "validate_every": None,
                "patience": None,
            }
        )

    def for_repair(self, steps: int) -> Self:
        """Return the settings of `steps` further steps, which end with their last weights."""
        return self.model_copy(update={"steps": steps, "epochs": None, "validate_every": None, "patience": None})

    def total_steps(self, rows: int) -> int:
        """Return the number of optimizer steps of a run on `rows` rows. The last, smaller batch of an epoch is a step
        as well.
        """
        if self.steps is not None:
            return self.steps
        return ceil((self.epochs or DEFAULT_EPOCHS) * ceil(rows / self.batch_size))


class LearningPlan(Frozen):
    """The decision of a strategy: a factor on the learning rate of each trained module, with an optional warm-up
    phase."""

    strategy: str
    """Label of the strategy that made the plan."""
    scales: dict[str, float]
    """Factor on the learning rate by module name; 1 is the standard rate, 0 freezes the module."""
    warmup_scales: dict[str, float] | None = None
    """Factors that replace `scales` in the first steps, for the same modules; null if there is no such phase."""
    warmup_ratio: float = Field(default=0.0, ge=0, le=1)
    """Share of the steps in which `warmup_scales` apply, rounded up to whole steps; 0 to 1."""

    @model_validator(mode="after")
    def _same_modules(self) -> Self:
        if self.warmup_scales is not None and self.warmup_scales.keys() != self.scales.keys():
            raise ValueError("warmup_scales and scales name different modules")
        return self

    @property
    def full_rate(self) -> tuple[str, ...]:
        """Return the names of the modules that get the standard rate or more."""
        return tuple(name for name, scale in self.scales.items() if scale >= 1)
