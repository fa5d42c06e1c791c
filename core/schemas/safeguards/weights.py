"""Safeguards that decide which weights a run ends with, or change them after training.

Not here: what they do (core.safeguards). Sizes without a source are this project's choice.
"""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator
from typing_extensions import override

from core.schemas.safeguards.interface import SafeguardOptions

MAX_REFUSAL_DRIFT = 0.2
"""Default bound on the refusal drift, in nats per token."""


class ProjectToSafe(SafeguardOptions):
    """Projects each module's update onto its alignment direction after training (after SafeLoRA, Hsu et al. 2024).

    The direction is the difference between the base model and the model that it was aligned from, which the server's
    list must name as the base model's `unaligned_base`.
    """

    name: ClassVar[str] = "project_to_safe"
    needs_unaligned_base: ClassVar[bool] = True

    threshold: float = Field(default=0.5, ge=0, le=1)
    """A module's update is projected if its cosine with its projection is at most this, 0 to 1; 1 projects all."""
    subspace: Literal["weighted", "span"] = "weighted"
    """`weighted` uses SafeLoRA's V V^T / |V|, which weights directions by how much alignment changed them and can
    shorten or lengthen an update. `span` projects onto the `rank` strongest directions, which never lengthens it."""
    rank: int = Field(default=16, ge=1, le=1024)
    """Number of directions that `span` projects onto, 1 to 1024."""

    @property
    @override
    def needs_adapter(self) -> bool:
        return True


class AverageWeights(SafeguardOptions):
    """Ends the run with a moving average of the trained weights over the steps (arXiv 2508.12531).

    The average begins at the base model. The validation loss, the refusal drift and early stopping of the run are those
    of the averaged weights. It takes as much memory on the device as the trained weights.
    """

    name: ClassVar[str] = "average_weights"

    decay: float = Field(default=0.99, ge=0, lt=1)
    """Decay per step, 0 to below 1: after each step the average is `decay` of itself and the rest of the new weights.
    The base model's share in the result is `decay` to the power of the steps: 8 % after 250 steps at 0.99. Use a
    smaller decay for short runs."""

    @property
    @override
    def title(self) -> str:
        return f"average_weights {self.decay:g}"


class KeepSafeWeights(SafeguardOptions):
    """Ends the run with the weights of the last measurement at which the model still refused like the base model.

    The refusal drift is measured about 20 times during training, on probe prompts that no figure is measured on. The
    run fails with `no_safe_weights` if no measurement after step 0 is within the bound. It cannot be combined with
    `training.patience`, which chooses weights by the validation loss.
    """

    name: ClassVar[str] = "keep_safe_weights"
    excludes_patience: ClassVar[bool] = True

    max_refusal_drift: float = Field(default=MAX_REFUSAL_DRIFT, ge=0, le=100)
    """Largest refusal drift of the kept weights, in nats per token, 0 to 100."""
    patience: int | None = Field(default=None, ge=1, le=100)
    """Training ends after this many measurements in a row above the bound, 1 to 100. Null trains to the end, because
    refusals often come back."""

    @property
    @override
    def title(self) -> str:
        return f"keep_safe_weights {self.max_refusal_drift:g}"

    @property
    @override
    def needs_refusals(self) -> bool:
        return True


class ScaleUpdate(SafeguardOptions):
    """Multiplies the whole update of the trained weights by a factor after training (after arXiv 2412.19512, which
    merges tuned models with their base).

    Give either a factor or the refusal drift that the largest factor of 1, 0.9, ... 0.1 must stay within, measured on
    probe prompts that no figure is measured on. If even 0.1 exceeds it, 0.1 is used and the report says so.
    """

    name: ClassVar[str] = "scale_update"
    grid: ClassVar[tuple[float, ...]] = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
    """Factors of a search, from the largest."""

    factor: float | None = Field(default=None, gt=0, le=1)
    """Factor on the update, above 0 and at most 1. Null searches the largest one within `max_refusal_drift`."""
    max_refusal_drift: float | None = Field(default=None, ge=0, le=100)
    """Largest refusal drift of the scaled model, in nats per token, 0 to 100; 0.2 if neither this nor `factor` is
    given."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.factor is not None and self.max_refusal_drift is not None:
            raise ValueError("give either factor or max_refusal_drift, not both")
        return self

    @property
    def tried(self) -> tuple[float, ...]:
        """The factors to try, from the largest."""
        return self.grid if self.factor is None else (self.factor,)

    @property
    def bound(self) -> float | None:
        """The refusal drift that the search stays within; None if the factor is given."""
        if self.factor is not None:
            return None
        return MAX_REFUSAL_DRIFT if self.max_refusal_drift is None else self.max_refusal_drift

    @property
    @override
    def title(self) -> str:
        return f"scale_update x{self.factor:g}" if self.factor else f"scale_update to drift {self.bound:g}"

    @property
    @override
    def needs_refusals(self) -> bool:
        return self.bound is not None
