"""The learning rate schedule: a pure function of the step. The factor of a module multiplies it."""

import math
from typing import assert_never

from core.schemas.training import Schedule


def factor(kind: Schedule, step: int, total: int, warmup_ratio: float) -> float:
    """The factor on the rate at a step (from 0) of `total`: a linear warm-up, then the decay of the schedule."""
    warmup = math.ceil(warmup_ratio * total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, total - warmup)
    match kind:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - done
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * done))
        case _:
            assert_never(kind)
