"""Strategies: from a robust subset to a factor on the learning rate for each module. Pure, no tensors.

Not here: how the robust subset is found (core.robustness), how the rate moves in time (core.training.schedule).
"""

from collections.abc import Collection, Sequence
from typing import assert_never

from core.spec.strategy import MlLrStrategy, Strategy, UniformStrategy
from core.spec.training import LearningPlan


def plan(strategy: Strategy, modules: Sequence[str], robust: Collection[str]) -> LearningPlan:
    """The factor of each module.

    `uniform`: 1 everywhere. `ml_lr`: 1 for the robust modules, `ratio` for the others (arXiv 2410.04524).
    """
    match strategy:
        case UniformStrategy():
            scales = dict.fromkeys(modules, 1.0)
        case MlLrStrategy(ratio=ratio):
            scales = {name: 1.0 if name in robust else ratio for name in modules}
        case _:
            assert_never(strategy)
    return LearningPlan(strategy=strategy.label, scales=scales)
