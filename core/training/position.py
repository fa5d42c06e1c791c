"""The position of a training run: everything in a checkpoint besides its tensors.

Not here: the tensors and where they are stored (core.training.checkpoint).
"""

from dataclasses import dataclass, field

from core.schemas.results import SecurityStep, TrainedStep, ValidatedStep


@dataclass
class Position:
    """The position of a run. Learning rates, phase and the rows of the next batch follow from the step."""

    step: int = 0
    """Number of completed steps."""
    seconds: float = 0.0
    """Time spent on them, over all attempts."""
    first_loss: float = 0.0
    """Loss of the first step, nats per token."""
    above: int = 0
    """Number of latest steps in a row whose loss is far above the first."""
    curve: list[TrainedStep] = field(default_factory=list)
    """The logged steps."""
    validation: list[ValidatedStep] = field(default_factory=list)
    """The measured validation losses."""
    security: list[SecurityStep] = field(default_factory=list)
    """The measured refusal drifts."""
    refusal_nll: float = 0.0
    """Negative log-likelihood of refusals before the first step, the zero of the refusal drift."""

    @property
    def best(self) -> ValidatedStep | None:
        """The validation with the lowest loss; the first one if several are equal."""
        return min(self.validation, key=lambda point: point.loss, default=None)

    def is_best(self) -> bool:
        """Whether the latest validation is the best so far."""
        return self.best is not None and self.best is self.validation[-1]

    def patience_ended(self, patience: int | None) -> bool:
        """Whether the last `patience` validations did not improve on the best one."""
        if patience is None or self.best is None:
            return False
        return len(self.validation) - 1 - self.validation.index(self.best) >= patience
