"""Modules are found from the model itself: names, types and layers, for the families in use."""

import pytest
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.errors import InvalidModel
from core.lm.load import BaseModel
from core.lm.modules import Module, find_modules, weight_of
from tests.core.helpers import FAMILIES, tiny

LLAMA = {"q", "k", "v", "o", "gate", "up", "down"}
TYPES = {
    "llama": LLAMA,
    "qwen2": LLAMA,
    "gemma": LLAMA,
    "gemma2": LLAMA,
    "phi3": {"qkv_proj", "o", "gate_up_proj", "down"},
    "gpt_neox": {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"},
    "gpt2": {"c_attn", "attn_c_proj", "c_fc", "mlp_c_proj"},
    "opt": {"q", "k", "v", "out_proj", "fc1", "fc2"},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_map_of_every_decoder_layer_is_found(family: str) -> None:
    model = tiny(family)
    found = find_modules(model)
    places = [(module.layer, module.type) for module in found]
    assert sorted(places) == sorted((layer, kind) for layer in (0, 1) for kind in TYPES[family])
    for module in found:
        part = model.get_submodule(module.name)
        assert isinstance(part, nn.Linear | Conv1D)
        assert weight_of(model, module).numel() == module.parameters
        assert f".{module.layer}." in module.name
        assert module.name.endswith(f".{module.leaf}")
    assert find_modules(model) == found


def test_embeddings_and_head_are_no_modules(base: BaseModel, modules: tuple[Module, ...]) -> None:
    named = {name for name, part in base.model.named_modules() if isinstance(part, nn.Linear)}
    assert named - {module.name for module in modules} == {"lm_head"}
    assert len(modules) == 6 * 7


class _Layer(nn.Module):
    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)


class _Other(PreTrainedModel):
    """A model whose stacks are handed in."""

    config_class = PreTrainedConfig

    def __init__(self, *stacks: nn.ModuleList) -> None:
        super().__init__(PreTrainedConfig())
        self.head = nn.Linear(4, 4)
        for number, stack in enumerate(stacks):
            self.add_module(f"stack{number}", stack)


@pytest.mark.parametrize(
    "model",
    [
        _Other(),
        _Other(nn.ModuleList()),
        _Other(nn.ModuleList([nn.LayerNorm(4), nn.LayerNorm(4)])),
        _Other(nn.ModuleList([nn.LayerNorm(4), nn.Linear(4, 4)])),
    ],
    ids=["no stack", "an empty one", "no linear map", "different layers"],
)
def test_a_model_without_decoder_layers_is_refused(model: PreTrainedModel) -> None:
    with pytest.raises(InvalidModel) as caught:
        find_modules(model)
    assert caught.value.code == "no_modules"


def test_of_two_stacks_the_greater_counts() -> None:
    small = nn.ModuleList([_Layer(nn.Linear(4, 4)) for _ in range(3)])
    great = nn.ModuleList([_Layer(nn.Linear(8, 8)) for _ in range(2)])
    found = find_modules(_Other(small, great))
    assert [module.name for module in found] == ["stack1.0.parts.0", "stack1.1.parts.0"]


def test_a_bare_tensor_is_no_weight() -> None:
    model = _Other(nn.ModuleList([_Layer(nn.Identity())]))
    model.get_submodule("stack0.0.parts.0").register_buffer("weight", torch.zeros(1))
    with pytest.raises(TypeError, match="has no weight"):
        weight_of(model, Module("stack0.0.parts.0", 0, "own", 1))
