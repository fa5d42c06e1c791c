"""Finds a model's modules: the linear maps of each decoder layer, from the model itself, not from a list of models.

A module (l, t) is the map of type t in layer l (arXiv 2410.04524). Well-known names are given their short types
(`q_proj` is `q`); an architecture's own maps keep their names (`c_attn`, `qkv_proj`), with the name of the block before
it where a layer has two of them (GPT-2's `attn_c_proj` and `mlp_c_proj`).
Not here: splitting fused maps into their parts.
"""

from collections import Counter
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.errors import InvalidModel

_SHORT = {
    "q_proj": "q",
    "k_proj": "k",
    "v_proj": "v",
    "o_proj": "o",
    "gate_proj": "gate",
    "up_proj": "up",
    "down_proj": "down",
}


@dataclass(frozen=True)
class Module:
    """One linear map of one decoder layer."""

    name: str
    layer: int
    type: str
    parameters: int

    @property
    def leaf(self) -> str:
        """Last part of the name, by which adapters are configured."""
        return _leaf(self.name)


def find_modules(model: PreTrainedModel) -> tuple[Module, ...]:
    """All modules of a base model, in its own order.

    Raises:
        InvalidModel: code `no_modules`, when there is no stack of equal decoder layers with linear maps.
    """
    stacks = [
        (name, child)
        for name, child in model.named_modules()
        if isinstance(child, nn.ModuleList) and len({type(layer) for layer in child}) == 1
    ]
    found = max((_of_stack(name, stack) for name, stack in stacks), key=_weight, default=())
    if not found:
        raise InvalidModel(
            f"{type(model).__name__} has no decoder layers with linear maps that securetune knows how to find.",
            code="no_modules",
            param="base_model",
        )
    return found


def weight_of(model: nn.Module, module: Module) -> nn.Parameter:
    """The module's weight."""
    weight = model.get_submodule(module.name).weight
    if not isinstance(weight, nn.Parameter):
        raise TypeError(f"{module.name} has no weight")
    return weight


def _of_stack(prefix: str, stack: nn.ModuleList) -> tuple[Module, ...]:
    return tuple(
        Module(name=f"{prefix}.{index}.{name}", layer=index, type=kind, parameters=weight.numel())
        for index, layer in enumerate(stack)
        for name, kind, weight in _of_layer(layer)
    )


def _of_layer(layer: nn.Module) -> list[tuple[str, str, Tensor]]:
    maps = {name: child.weight for name, child in layer.named_modules() if isinstance(child, nn.Linear | Conv1D)}
    leaves = Counter(_leaf(name) for name in maps)
    return [
        (name, _SHORT.get(_leaf(name), _leaf(name)) if leaves[_leaf(name)] == 1 else name.replace(".", "_"), weight)
        for name, weight in maps.items()
    ]


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _weight(found: tuple[Module, ...]) -> int:
    return sum(module.parameters for module in found)
