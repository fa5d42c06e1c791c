"""Applies a learning plan to parameters: which ones are trained, with which factor, and which rows are slower.

The parts of a fused map share its parameters. The optimizer moves these with the factor of the fastest part; the rows
of slower parts (of an adapter's B, or of the weight itself) are then moved back by the excess. The step is reduced and
not the gradient, because the step of Adam does not depend on the size of the gradient. Rows with factor 0 do not change
by a bit. Gradients are clipped before that, so gradients of slower rows count in the clipped norm, like those of every
slower module.
Not here: the factors (strategies), when they apply (rates), the loop.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from core.errors import TrainingFailed
from core.lm.adapter import base_model, factors, lora_layers
from core.lm.modules import Module, by_map, find_modules, own_parameters
from core.schemas.training import LearningPlan

Tuned = PeftModel | PreTrainedModel
"""The trained model: a base model with an adapter, or the model itself."""


@dataclass(frozen=True)
class SlowRows:
    """Rows of a parameter that make only a share of each step."""

    parameter: nn.Parameter
    axis: int
    rows: Tensor
    share: float

    def current(self) -> Tensor:
        """A copy of the rows."""
        return self.parameter.detach().index_select(self.axis, self.rows)


def trained_factors(tuned: Tuned, plan: LearningPlan) -> dict[str, float]:
    """The factor on the learning rate of each trained parameter, by name. Sets `requires_grad` of all parameters.

    Raises:
        TrainingFailed: code `nothing_to_train`; every module is frozen.
    """
    of_map = {id(parameter): max(scales) for parameter, _, scales, _ in _parameters(tuned, plan)}
    found: dict[str, float] = {}
    for name, parameter in tuned.named_parameters():
        scale = of_map.get(id(parameter), 0.0)
        parameter.requires_grad_(scale > 0)
        if scale > 0:
            found[name] = scale
    if not found:
        raise TrainingFailed(
            "Every module is frozen, because no module is robust and the ratio is 0. Raise the ratio, or the budget of "
            "the analysis.",
            code="nothing_to_train",
            param="strategy",
        )
    return found


def find_slow_rows(tuned: Tuned, plan: LearningPlan) -> tuple[SlowRows, ...]:
    """The rows of slower parts of fused maps. Empty if no map is fused or all parts have the same factor."""
    found: list[SlowRows] = []
    for parameter, axis, scales, modules in _parameters(tuned, plan):
        fastest = max(scales)
        for module, scale in zip(modules, scales, strict=True):
            rows = module.indexes(parameter.device)
            if axis is not None and rows is not None and scale < fastest:
                found.append(SlowRows(parameter, axis, rows, scale / fastest))
    return tuple(found)


def attach_slow_rows(optimizer: Optimizer, current: Callable[[], Sequence[SlowRows]]) -> None:
    """Make every step of the optimizer slow down the current slow rows. Nothing is stored between steps."""
    before: list[tuple[SlowRows, Tensor]] = []

    def save(_optimizer: Optimizer, _args: object, _kwargs: object) -> None:
        before[:] = [(slow, slow.current()) for slow in current() if slow.parameter.grad is not None]

    @torch.no_grad()
    def limit(_optimizer: Optimizer, _args: object, _kwargs: object) -> None:
        for slow, rows in before:
            kept = rows if slow.share == 0 else rows.lerp(slow.current(), slow.share)
            slow.parameter.index_copy_(slow.axis, slow.rows, kept)
        before.clear()

    optimizer.register_step_pre_hook(save)
    optimizer.register_step_post_hook(limit)


def _parameters(
    tuned: Tuned, plan: LearningPlan
) -> Iterator[tuple[nn.Parameter, int | None, list[float], list[Module]]]:
    """All parameters of the modules in the plan, the dimension of the map's outputs (None if it has none), the factors
    of the modules, and the modules.
    """
    model = base_model(tuned) if isinstance(tuned, PeftModel) else tuned
    layers = lora_layers(tuned) if isinstance(tuned, PeftModel) else {}
    for name, modules in by_map(find_modules(model)).items():
        if not any(module.name in plan.scales for module in modules):
            continue
        scales = [plan.scales.get(module.name, 0.0) for module in modules]
        if isinstance(tuned, PeftModel):
            a, b = factors(layers[name])
            yield a, None, scales, modules
            yield b, 0, scales, modules
        else:
            yield from ((each, axis, scales, modules) for each, axis in own_parameters(model, modules[0]))
