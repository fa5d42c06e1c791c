"""The learning rate of every parameter at every step of a run.

A plan may have a warm-up phase with its own factors. A parameter that is frozen in one phase and trained in the other
keeps its optimizer state, because the optimizer skips parameters without a gradient.
Not here: the factors (strategies), the schedule of the standard rate (schedule).
"""

import math

from torch import nn
from torch.optim import Optimizer

from core.schemas.training import LearningPlan, TrainingSpec
from core.training.groups import Tuned, attach_slow_rows, find_slow_rows, trained_factors
from core.training.idle import disable_idle_adapters
from core.training.schedule import factor


class Rates:
    """Groups of parameters that share a learning rate, and the rate of each group at a step."""

    def __init__(self, tuned: Tuned, plan: LearningPlan, spec: TrainingSpec, *, total: int, rate: float) -> None:
        """Group the trained parameters. `total` is the number of steps of the run, `rate` the standard learning rate.

        Raises:
            TrainingFailed: code `nothing_to_train`; every module is frozen in one of the phases.
        """
        self._spec, self._total, self._rate = spec, total, rate
        self._warmup = math.ceil(plan.warmup_ratio * total) if plan.warmup_scales is not None else 0
        self._phase: int | None = None
        self._tuned = tuned
        phases = [plan]
        if plan.warmup_scales is not None and self._warmup:
            phases = [plan.model_copy(update={"scales": plan.warmup_scales}), plan]
        found = [trained_factors(tuned, phase) for phase in phases]
        self._slow = [find_slow_rows(tuned, phase) for phase in phases]
        self.parameters = {
            name: parameter for name, parameter in tuned.named_parameters() if any(name in phase for phase in found)
        }
        """All parameters that are trained in any phase, by name."""
        self._groups: dict[tuple[float, ...], list[nn.Parameter]] = {}
        for name, parameter in self.parameters.items():
            factors = tuple(phase.get(name, 0.0) for phase in found)
            self._groups.setdefault(factors, []).append(parameter)

    @property
    def groups(self) -> list[dict[str, object]]:
        """Parameter groups for the optimizer. `apply` expects an optimizer with exactly these groups."""
        return [{"params": group} for group in self._groups.values()]

    def attach(self, optimizer: Optimizer) -> None:
        """Make the optimizer slow down the parts of fused maps that the current phase trains more slowly."""
        if any(self._slow):
            attach_slow_rows(optimizer, lambda: self._slow[self._phase or 0])

    def apply(self, optimizer: Optimizer, step: int) -> float:
        """Set the learning rates and frozen parameters of a step, from 1. Returns the standard rate of that step."""
        rate = self._rate * factor(self._spec.schedule, step - 1, self._total, self._spec.warmup_ratio)
        phase = -1 if step > self._warmup else 0
        for group, factors in zip(optimizer.param_groups, self._groups, strict=True):
            group["lr"] = rate * factors[phase]
            if phase != self._phase:
                for parameter in group["params"]:
                    parameter.requires_grad_(factors[phase] > 0)
        if phase != self._phase:
            disable_idle_adapters(self._tuned)
        self._phase = phase
        return rate
