"""Notices a run that went wrong: a loss that is no number any more, or one that stays far above where it began.

The rule for the second: ten steps in a row whose loss is more than 3 nats per token above that of the first step, which
the untouched model gave. At 3 nats a token is twenty times less likely than before any training; a single hard batch,
or the few steps that a high rate needs to settle, are no ground to stop.
"""

import math

from core.errors import TrainingFailed

_FAR_ABOVE = 3.0
_STEPS_IN_A_ROW = 10


def finite(loss: float, *, step: int, total: int, rate: float) -> None:
    """Stop where a loss is no number.

    Raises:
        TrainingFailed: code `loss_not_finite`.
    """
    if not math.isfinite(loss):
        raise _failed("loss_not_finite", f"The loss became NaN or infinite at step {step} of {total}.", rate)


def steps_far_above(loss: float, *, first: float, before: int, step: int, total: int, rate: float) -> int:
    """How many steps in a row the loss is far above the first step's, this one included; `before` were it before.

    Raises:
        TrainingFailed: code `loss_exploded`.
    """
    above = before + 1 if loss > first + _FAR_ABOVE else 0
    if above >= _STEPS_IN_A_ROW:
        what = (
            f"The loss has exploded: at step {step} of {total} it is {loss:.2f} nats per token, where the first step's "
            f"was {first:.2f}, and it has been far above that for {above} steps."
        )
        raise _failed("loss_exploded", what, rate)
    return above


def _failed(code: str, what: str, rate: float) -> TrainingFailed:
    return TrainingFailed(
        f"{what} A smaller learning rate than {rate:g} or a longer warm-up usually helps.",
        code=code,
        param="training.learning_rate",
    )
