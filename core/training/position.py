"""How far a run is: what a checkpoint keeps beside its tensors, and what the end of the run is told from.

Not here: the tensors and where they are kept (core.training.checkpoint).
"""

from dataclasses import dataclass, field

from core.schemas.results import SecurityStep, TrainedStep, ValidatedStep


@dataclass
class Position:
    """How far a run is. Rates, phase and the rows of the next batch follow from the step."""

    step: int = 0
    """Steps done."""
    seconds: float = 0.0
    """Time spent on them, in all attempts."""
    first_loss: float = 0.0
    """Loss of the first step."""
    above: int = 0
    """Steps in a row, up to now, with a loss far above the first."""
    curve: list[TrainedStep] = field(default_factory=list)
    """Logged steps."""
    validation: list[ValidatedStep] = field(default_factory=list)
    """Validation losses."""
    security: list[SecurityStep] = field(default_factory=list)
    """How far refusals drifted."""
    refusal_nll: float = 0.0
    """The base model's, which drift is counted from."""

    @property
    def best(self) -> ValidatedStep | None:
        """The least validation loss, and the first of equals."""
        return min(self.validation, key=_loss, default=None)

    def at_best(self) -> bool:
        """Whether the last validation was the best."""
        return self.best is not None and self.best is self.validation[-1]

    def out_of_patience(self, patience: int | None) -> bool:
        """Whether so many validations in a row were no better than the best before them."""
        if patience is None or self.best is None:
            return False
        return len(self.validation) - 1 - self.validation.index(self.best) >= patience


def _loss(point: ValidatedStep) -> float:
    return point.loss
