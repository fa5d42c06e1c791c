"""Modules are found from the model itself: names, types and layers, for the families in use."""

import pytest
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from core.errors import InvalidModel
from core.lm import full
from core.lm.adapter import attached
from core.lm.load import BaseModel
from core.lm.modules import Module, by_map, decoder_layers, find_modules, has_experts, weight_of
from core.schemas.training import LoraSpec
from tests.core.helpers import FAMILIES, fingerprint, tiny

LLAMA = {"q", "k", "v", "o", "gate", "up", "down"}
PLAIN = {"q", "k", "v", "o", "up", "down"}
TYPES = {
    "gpt2": PLAIN,
    "gpt_neox": PLAIN,
    "bloom": PLAIN,
    "falcon": PLAIN,
    "opt": PLAIN,
    "mixtral": LLAMA | {"router"},
    "qwen2_moe": LLAMA | {"router", "shared_gate", "shared_up", "shared_down", "shared_expert_gate"},
    "qwen3_moe": LLAMA | {"router"},
    "gpt_oss": LLAMA | {"router"},
}
"""Types that are not Llama's."""


@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_map_of_every_decoder_layer_is_found(family: str) -> None:
    model = tiny(family)
    before = fingerprint(model)
    found = find_modules(model)
    places = [(module.layer, module.type) for module in found]
    assert sorted(places) == sorted((layer, kind) for layer in (0, 1) for kind in TYPES.get(family, LLAMA))
    assert len({module.name for module in found}) == len(found)
    for module in found:
        assert f".{module.layer}." in module.name
        if module.rows is None:
            assert module.name == module.map
        else:
            assert module.name == f"{module.map}[{module.type}]"
    assert find_modules(model) == found
    assert fingerprint(model) == before


@pytest.mark.parametrize("family", FAMILIES)
def test_modules_are_all_that_is_multiplied_and_parts_make_up_their_map(family: str) -> None:
    model = tiny(family)
    layers = dict(model.get_submodule(decoder_layers(model)[0]).named_parameters())
    matrices = sum(parameter.numel() for name, parameter in layers.items() if parameter.ndim > 1 and "bias" not in name)
    assert sum(module.parameters for module in find_modules(model)) == matrices
    for modules in by_map(find_modules(model)).values():
        weight = weight_of(model, modules[0])
        assert sum(module.parameters for module in modules) == weight.numel()
        if len(modules) > 1:
            rows = [row for module in modules for run in module.rows or () for row in run]
            assert sorted(rows) == list(range(weight.shape[modules[0].axis]))
        else:
            assert modules[0].rows is None


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_on_the_model_hides_nothing(family: str) -> None:
    model = tiny(family)
    found = find_modules(model)
    weights = [weight_of(model, module) for module in found]
    with attached(model, found, LoraSpec(rank=2), seed=0) as tuned:
        tuned.train()
        assert find_modules(model) == found
        assert all(weight_of(model, module) is weight for module, weight in zip(found, weights, strict=True))
        assert tuned.training
        assert all(part.training for part in model.modules() if type(part) is nn.Dropout)


def test_half_precision_is_read_the_same() -> None:
    for family in ("gpt2", "gpt_neox", "phi3", "mixtral"):
        model = tiny(family)
        found = find_modules(model)
        assert find_modules(model.bfloat16()) == found
        with full.opened(model, found):  # what is trained is in float32 then
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


def test_a_layer_with_two_maps_of_one_type_names_them_by_their_place() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = (nn.ModuleDict({"up_proj": nn.Linear(4, 8)}) for _ in range(2))

    found = find_modules(_Other(nn.ModuleList([Two()])))
    assert [module.type for module in found] == ["one_up_proj", "other_up_proj"]


@pytest.mark.parametrize(
    ("sizes", "types"),
    [
        ([(4, 8), (8, 4)], ["up", "down"]),
        ([(8, 4), (4, 8)], ["down", "up"]),
        ([(4, 4), (4, 4)], ["0", "1"]),
        ([(4, 8), (4, 8)], ["0", "1"]),
        ([(8, 6), (6, 8)], ["0", "1"]),
        ([(4, 2), (2, 4)], ["0", "1"]),
    ],
    ids=["in and out", "out and in", "square", "two ways in", "of another width", "a narrow place"],
)
def test_a_way_in_and_a_way_out_are_told_by_their_sizes(sizes: list[tuple[int, int]], types: list[str]) -> None:
    model = _Other(nn.ModuleList([_Layer(*(nn.Linear(*size) for size in sizes))]))
    model.config.hidden_size = 4
    assert [module.type for module in find_modules(model)] == types


def test_a_convolution_is_no_expert() -> None:
    model = _Other(nn.ModuleList([_Layer(nn.Conv1d(4, 4, 2), nn.Linear(4, 4))]))
    assert [(module.name, module.type) for module in find_modules(model)] == [("stack0.0.parts.1", "1")]
    assert not has_experts(model)
    assert has_experts(tiny("mixtral"))


def test_a_bare_tensor_is_no_weight() -> None:
    model = _Other(nn.ModuleList([_Layer(nn.Identity())]))
    model.get_submodule("stack0.0.parts.0").register_buffer("weight", torch.zeros(1))
    with pytest.raises(TypeError, match="has no weight"):
        weight_of(model, Module("stack0.0.parts.0", 0, "own", 1))
