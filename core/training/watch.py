"""Detects failed runs: a loss that is NaN or infinite, or one that stays far above the first loss.

A loss has exploded if it is more than 3 nats per token above the loss of the first step, which is that of the untrained
model, for ten steps in a row. At 3 nats, a token is twenty times less likely than before training. One hard batch, or
a few unstable steps at a high rate, do not end a run.
"""

import math

from core.errors import TrainingFailed

_FAR_ABOVE = 3.0
_STEPS_IN_A_ROW = 10


def check_finite(loss: float, *, step: int, total: int, rate: float) -> None:
    """Fail if a loss is NaN or infinite.

    Raises:
        TrainingFailed: code `loss_not_finite`.
    """
    if not math.isfinite(loss):
        raise _failed("loss_not_finite", f"The loss became NaN or infinite at step {step} of {total}.", rate)


def count_steps_far_above(loss: float, *, first: float, before: int, step: int, total: int, rate: float) -> int:
    """Number of latest steps in a row, this one included, whose loss is far above the first step's.

    `first` is the loss of the first step, and `before` the number before this step.

    Raises:
        TrainingFailed: code `loss_exploded`; the number reached its limit.
    """
    above = before + 1 if loss > first + _FAR_ABOVE else 0
    if above >= _STEPS_IN_A_ROW:
        problem = (
            f"The loss has exploded: it is {loss:.2f} nats per token at step {step} of {total} and was {first:.2f} at "
            f"the first step. It has been far above that for {above} steps."
        )
        raise _failed("loss_exploded", problem, rate)
    return above


def _failed(code: str, problem: str, rate: float) -> TrainingFailed:
    return TrainingFailed(
        f"{problem} Use a learning rate below {rate:g} or a longer warm-up.",
        code=code,
        param="training.learning_rate",
    )
