"""How a model is trained: the `training` part of a job spec, and the plan that a strategy makes of it.

Not here: strategies' own options (core.spec.strategy), the loop (core.training).
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from core.spec.base import Frozen

DEFAULT_EPOCHS = 3.0
"""Length of a run whose order names none."""

Schedule = Literal["constant", "linear", "cosine"]
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
    """Module types that get an update (`q`, `k`, `v`, `o`, `gate`, `up`, `down`), or `all` that the model has."""


class TrainingSpec(Frozen):
    """One training run. Every arm of a job (its strategy and those it is compared with) uses the same."""

    epochs: float | None = Field(default=None, gt=0, le=100)
    """Passes over the training rows; 3 when neither this nor `steps` is given."""
    steps: int | None = Field(default=None, ge=1, le=1_000_000)
    """Optimizer steps, instead of `epochs`."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Standard learning rate, which robust modules get; null takes the base model's own, as `GET /models` shows it."""
    batch_size: int = Field(default=16, ge=1, le=4096)
    """Rows in one optimizer step."""
    max_length: int = Field(default=1024, ge=16, le=131_072)
    """Longest row in tokens; longer ones are cut, and rows whose prompt alone fills it are dropped and counted."""
    lora: LoraSpec = LoraSpec()
    """Shape of the adapter."""
    schedule: Schedule = "cosine"
    """How the rate falls after the warm-up: not at all, to 0 in a line, or to 0 along a half cosine."""
    warmup_share: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps in which the rate rises linearly from 0."""
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    """Decoupled weight decay (AdamW)."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""
    validation_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of the rows held out when the job names no validation dataset (at most 200 rows)."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Decides the hold-out, the order of rows, the adapter's first weights and dropout."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("give either epochs or steps, not both")
        return self


class LearningPlan(Frozen):
    """What a strategy decided: a factor on the learning rate for each trained module."""

    strategy: str
    """Label of the strategy."""
    scales: dict[str, float]
    """Module name to factor; 1 is the standard rate, 0 freezes the module."""

    @property
    def full_rate(self) -> tuple[str, ...]:
        """Names of the modules that get the standard rate or more."""
        return tuple(name for name, scale in self.scales.items() if scale >= 1)
