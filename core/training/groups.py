"""From a learning plan to what the optimizer does: which parameters are trained, at which factor, and slower rows.

Parts of a fused map share its parameters. These move at the factor of the fastest part; the rows of slower parts (of an
adapter's B, or of the weight itself) then go back by as much as they went too far. The step is cut, not the gradient:
Adam's step does not depend on the gradient's size. Rows of factor 0 stay to the bit. Gradients are clipped before that,
so those of slower rows are in the norm that is clipped, as they are of every slower module.
Not here: what the factors are (strategies), when they hold (rates), the loop.
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
"""What is trained: a base model with an adapter, or the model itself."""


@dataclass(frozen=True)
class SlowRows:
    """Rows of a parameter that go only a share of its way."""

    parameter: nn.Parameter
    axis: int
    rows: Tensor
    share: float

    def hold(self, before: Tensor) -> None:
        """Back to this share of the way from `before`."""
        after = self.parameter.index_select(self.axis, self.rows)
        kept = before if self.share == 0 else before.lerp(after, self.share)
        self.parameter.index_copy_(self.axis, self.rows, kept)

    def copy(self) -> Tensor:
        """What they are now."""
        return self.parameter.detach().index_select(self.axis, self.rows)


def factors_of(tuned: Tuned, plan: LearningPlan) -> dict[str, float]:
    """Factor on the rate of each trained parameter, by its name. The others ask for no gradient from here on.

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
            "Every module is frozen: no module is robust and the ratio is 0, so nothing would be trained.",
            code="nothing_to_train",
            param="strategy",
        )
    return found


def slow_rows_of(tuned: Tuned, plan: LearningPlan) -> tuple[SlowRows, ...]:
    """Rows of slower parts of fused maps; none where no map is fused, or its parts are alike."""
    found: list[SlowRows] = []
    for parameter, axis, scales, modules in _parameters(tuned, plan):
        fastest = max(scales)
        for module, scale in zip(modules, scales, strict=True):
            rows = module.indexes(parameter.device)
            if axis is not None and rows is not None and scale < fastest:
                found.append(SlowRows(parameter, axis, rows, scale / fastest))
    return tuple(found)


def attach_slow_rows(optimizer: Optimizer, current: Callable[[], Sequence[SlowRows]]) -> None:
    """Have every step of the optimizer hold the rows that are slow at that time. Nothing is kept between steps."""
    before: list[tuple[SlowRows, Tensor]] = []

    def keep(_optimizer: Optimizer, _args: object, _kwargs: object) -> None:
        before[:] = [(slow, slow.copy()) for slow in current() if slow.parameter.grad is not None]

    @torch.no_grad()
    def hold(_optimizer: Optimizer, _args: object, _kwargs: object) -> None:
        for slow, rows in before:
            slow.hold(rows)
        before.clear()

    optimizer.register_step_pre_hook(keep)
    optimizer.register_step_post_hook(hold)


_Found = tuple[nn.Parameter, int | None, list[float], list[Module]]
"""A parameter, its dimension that counts a map's outputs (null: none does), the modules' factors, the modules."""


def _parameters(tuned: Tuned, plan: LearningPlan) -> Iterator[_Found]:
    """Every parameter that belongs to a module of the plan."""
    model = base_model(tuned) if isinstance(tuned, PeftModel) else tuned
    layers = lora_layers(tuned) if isinstance(tuned, PeftModel) else {}
    for name, modules in by_map(find_modules(model)).items():
        if not any(module.name in plan.scales for module in modules):
            continue
        scales = [plan.scales.get(module.name, 0.0) for module in modules]
        if isinstance(tuned, PeftModel):
            for a, b in factors(layers[name]):
                yield a, None, scales, modules
                yield b, 0, scales, modules
        else:
            yield from ((each, axis, scales, modules) for each, axis in own_parameters(model, modules[0]))
