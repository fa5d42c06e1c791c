"""How a model is trained: the `training` part of a job spec, and the plan that a strategy makes of it.

Not here: strategies' own options (core.schemas.strategy), the loop (core.training).
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from core.schemas.base import Frozen

DEFAULT_EPOCHS = 3.0
"""Length of a run whose order names none."""
FULL_RATE_SHARE = 0.1
"""A full run takes this share of the rate that an adapter takes on the same model."""

Schedule = Literal["constant", "linear", "cosine"]
Method = Literal["lora", "full", "qlora"]
Precision = Literal["auto", "float32", "bfloat16"]
ModuleType = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9_]+$")]


class LoraSpec(Frozen):
    """Low-rank adaptation (Hu et al. 2021): each chosen module gets an update B A of small rank."""

    rank: int = Field(default=16, ge=1, le=256)
    """Rank of the update. Serving engines often refuse ranks above their own limit (vLLM: 16 by default)."""
    alpha: int = Field(default=32, ge=1, le=4096)
    """Scale: the update is multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the input of the update."""
    targets: Literal["all"] | Annotated[tuple[ModuleType, ...], Field(min_length=1, max_length=64)] = "all"
    """Module types that are trained (`q`, `k`, `v`, `o`, `gate`, `up`, `down`, or what else the model has), or `all` of
    them but the routers of experts (`router`)."""


class TrainingSpec(Frozen):
    """One training run. Every arm of a job (its strategy and those it is compared with) uses the same."""

    method: Method = "lora"
    """What is trained: an adapter (`lora`), the modules' own weights (`full`; the whole model is handed out), or an
    adapter on a base of 4-bit weights (`qlora`; needs a CUDA GPU)."""
    epochs: float | None = Field(default=None, gt=0, le=100)
    """Passes over the training rows; 3 when neither this nor `steps` is given."""
    steps: int | None = Field(default=None, ge=1, le=1_000_000)
    """Optimizer steps, instead of `epochs`."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Standard learning rate, which robust modules get; null takes the base model's own, as `GET /models` shows it, or
    a tenth of it where `method` is `full`."""
    batch_size: int = Field(default=16, ge=1, le=4096)
    """Rows in one optimizer step."""
    micro_batch_size: int | None = Field(default=None, ge=1, le=4096)
    """Rows in one forward pass, to need less memory: gradients add up to those of the whole batch. Null: all of it."""
    group_by_length: bool = False
    """Whether a batch holds rows of like length, which saves padding; the order of the batches is still shuffled."""
    precision: Precision = "auto"
    """What the forward pass is computed in: `auto` is bfloat16 on a GPU and float32 on a CPU. Trained weights and the
    optimizer are always float32."""
    max_length: int = Field(default=1024, ge=16, le=131_072)
    """Longest row in tokens; longer ones are cut, and rows whose prompt alone fills it are dropped and counted."""
    lora: LoraSpec = LoraSpec()
    """Shape of the adapter; where `method` is `full`, only its `targets` count."""
    schedule: Schedule = "cosine"
    """How the rate falls after the warm-up: not at all, to 0 in a line, or to 0 along a half cosine."""
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps in which the rate rises linearly from 0."""
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    """Decoupled weight decay (AdamW)."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""
    validation_split: float = Field(default=0.1, gt=0, lt=1)
    """Share of the rows held out when the job names no validation dataset (at most 200 rows)."""
    validate_every: int | None = Field(default=None, ge=1, le=1_000_000)
    """Steps between two measurements of the validation loss, and one at the end; null measures it after training only.
    It changes nothing about what is trained, unless `patience` is given."""
    patience: int | None = Field(default=None, ge=1, le=10_000)
    """Training stops after so many measurements in a row without a lower validation loss, and the weights of the best
    one are kept. Null trains to the end and keeps the last."""
    checkpoint_every: int | None = Field(default=None, ge=1, le=1_000_000)
    """Steps between checkpoints, from which an interrupted run goes on; null takes one every ten minutes, so that short
    runs take none. A run that was interrupted ends as one that was not."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Decides the hold-out, the order of rows, the adapter's first weights and dropout."""

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
        """The standard learning rate on a model whose own rate, for adapters, is `of_model`."""
        return self.learning_rate or of_model * (FULL_RATE_SHARE if self.method == "full" else 1.0)


class LearningPlan(Frozen):
    """What a strategy decided: a factor on the learning rate for each trained module, which may differ at the start."""

    strategy: str
    """Label of the strategy."""
    scales: dict[str, float]
    """Module name to factor; 1 is the standard rate, 0 freezes the module."""
    warmup_scales: dict[str, float] | None = None
    """Factors that hold instead of `scales` in the first steps, of the same modules; null: there is no such phase."""
    warmup_ratio: float = Field(default=0.0, ge=0, le=1)
    """Share of the steps in which they hold, rounded up to whole steps."""

    @model_validator(mode="after")
    def _same_modules(self) -> Self:
        if self.warmup_scales is not None and self.warmup_scales.keys() != self.scales.keys():
            raise ValueError("warmup_scales and scales name different modules")
        return self

    @property
    def full_rate(self) -> tuple[str, ...]:
        """Names of the modules that get the standard rate or more."""
        return tuple(name for name, scale in self.scales.items() if scale >= 1)
