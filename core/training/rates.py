"""The learning rates of a run, step by step: which parameters are trained, and how fast each one is.

A plan may have a warm-up phase with factors of its own. A parameter that is frozen in one phase and trained in the
other keeps its own optimizer state: the optimizer leaves alone what has no gradient.
Not here: what the factors are (strategies), how the standard rate moves in time (schedule).
"""

import math

from torch import nn
from torch.optim import Optimizer

from core.schemas.training import LearningPlan, TrainingSpec
from core.training.groups import Tuned, attach_slow_rows, factors_of, slow_rows_of
from core.training.idle import rest
from core.training.schedule import factor


class Rates:
    """Parameters in groups of one rate each, and what that rate is at a step."""

    def __init__(self, tuned: Tuned, plan: LearningPlan, spec: TrainingSpec, *, total: int, rate: float) -> None:
        """`rate` is the standard one, `total` the number of steps in all.

        Raises:
            TrainingFailed: code `nothing_to_train`; a phase in which every module is frozen.
        """
        self._spec, self._total, self._rate = spec, total, rate
        self._warmup = warmup_steps(plan, total)
        self._phase: int | None = None
        self._tuned = tuned
        phases = [plan]
        if plan.warmup_scales is not None and self._warmup:
            phases = [plan.model_copy(update={"scales": plan.warmup_scales}), plan]
        found = [factors_of(tuned, phase) for phase in phases]
        self._slow = [slow_rows_of(tuned, phase) for phase in phases]
        self.parameters = {
            name: parameter for name, parameter in tuned.named_parameters() if any(name in phase for phase in found)
        }
        """Everything that is trained at some time, by name."""
        self._groups: dict[tuple[float, ...], list[nn.Parameter]] = {}
        for name, parameter in self.parameters.items():
            factors = tuple(phase.get(name, 0.0) for phase in found)
            self._groups.setdefault(factors, []).append(parameter)

    @property
    def groups(self) -> list[dict[str, object]]:
        """For the optimizer, which `hold` expects to have just these."""
        return [{"params": group} for group in self._groups.values()]

    def attach(self, optimizer: Optimizer) -> None:
        """Have the optimizer hold back what parts of fused maps a phase makes slower than others of their map."""
        if any(self._slow):
            attach_slow_rows(optimizer, lambda: self._slow[self._phase or 0])

    def hold(self, optimizer: Optimizer, step: int) -> float:
        """Set every rate to what it is at a step, from 1, and freeze what is frozen then. Returns the standard rate."""
        rate = self._rate * factor(self._spec.schedule, step - 1, self._total, self._spec.warmup_ratio)
        phase = -1 if step > self._warmup else 0
        for group, factors in zip(optimizer.param_groups, self._groups, strict=True):
            group["lr"] = rate * factors[phase]
            if phase != self._phase:
                for parameter in group["params"]:
                    parameter.requires_grad_(factors[phase] > 0)
        if phase != self._phase:
            rest(self._tuned)
        self._phase = phase
        return rate


def warmup_steps(plan: LearningPlan, total: int) -> int:
    """Number of steps of the plan's warm-up phase."""
    return math.ceil(plan.warmup_ratio * total) if plan.warmup_scales is not None else 0
