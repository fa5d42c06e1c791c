"""Rows of a fused map are found by what they do; where that does not fit together, nothing is claimed."""

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel
from typing_extensions import override

from core.lm.layout import Rows, attention_parts, gate_parts
from core.lm.modules import find_modules
from tests.core.helpers import fingerprint, tiny

WIDTH = 16
HEADS = [range(start, start + 4) for start in range(0, 48, 4)]
PARTS: dict[str, tuple[str, dict[str, Rows]]] = {
    "phi3": ("self_attn.qkv_proj", {"q": (range(16),), "k": (range(16, 24),), "v": (range(24, 32),)}),
    "gpt2": ("attn.c_attn", {"q": (range(16),), "k": (range(16, 32),), "v": (range(32, 48),)}),
    "gpt_neox": ("attention.query_key_value", {kind: tuple(HEADS[place::3]) for place, kind in enumerate("qkv")}),
    "bloom": ("self_attention.query_key_value", {kind: tuple(HEADS[place::3]) for place, kind in enumerate("qkv")}),
    "falcon": (
        "self_attention.query_key_value",  # two groups of two query heads, each with a key and a value
        {
            "q": (range(8), range(16, 24)),
            "k": (range(8, 12), range(24, 28)),
            "v": (range(12, 16), range(28, 32)),
        },
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", PARTS)
@pytest.mark.parametrize("seed", range(5))
def test_rows_are_those_that_the_models_code_reads(family: str, seed: int, dtype: torch.dtype) -> None:
    name, wanted = PARTS[family]
    model = tiny(family, seed=seed)
    found = find_modules(model.bfloat16() if dtype == torch.bfloat16 else model)
    assert {module.type: module.rows for module in found if name in module.name and module.layer == 1} == wanted


@pytest.mark.parametrize("seed", range(5))
def test_gate_and_up_are_told_apart(seed: int) -> None:
    found = [module for module in find_modules(tiny("phi3", seed=seed)) if "gate_up" in module.name]
    assert [(module.type, module.rows) for module in found[:2]] == [("gate", (range(32),)), ("up", (range(32, 64),))]


class _Gated(nn.Module):
    """A gated block whose layout is chosen."""

    def __init__(
        self, *, every_other: bool = False, up_first: bool = False, activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.both, self.down = nn.Linear(4, WIDTH), nn.Linear(WIDTH // 2, 4)
        self.every_other, self.up_first, self.activation = every_other, up_first, activation or nn.SiLU()

    @override
    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        both = self.both(hidden)
        one, other = (both[..., ::2], both[..., 1::2]) if self.every_other else both.chunk(2, dim=-1)
        gate, up = (other, one) if self.up_first else (one, other)
        return self.down(self.activation(gate) * up)


class _Holder(nn.Module):
    """Stands in for a model: it runs one block on two tokens."""

    def __init__(self, block: nn.Module, donor: PreTrainedModel) -> None:
        super().__init__()
        self.block, self.config, self.device = block, donor.config, donor.device

    @override
    def forward(self, input_ids: torch.Tensor, **_: object) -> torch.Tensor:
        return self.block(torch.zeros(*input_ids.shape, 4))


def parts_of(block: _Gated) -> dict[str, Rows] | None:
    holder = _Holder(block, tiny("llama"))
    return gate_parts(holder, block, block.both, WIDTH)  # pyrefly: ignore[bad-argument-type]


@pytest.mark.parametrize("every_other", [False, True])
@pytest.mark.parametrize("up_first", [False, True])
@pytest.mark.parametrize("activation", [nn.SiLU(), nn.GELU(), nn.Sigmoid(), nn.ReLU()])
def test_every_layout_of_a_gate_is_recognised(*, every_other: bool, up_first: bool, activation: nn.Module) -> None:
    pair = (range(0, 16, 2), range(1, 16, 2)) if every_other else (range(8), range(8, 16))
    gate, up = pair[::-1] if up_first else pair
    found = parts_of(_Gated(every_other=every_other, up_first=up_first, activation=activation))
    assert found == {"gate": (gate,), "up": (up,)}


def test_two_halves_that_are_alike_are_not_told_apart() -> None:
    assert parts_of(_Gated(activation=nn.Identity())) is None


def test_an_attention_that_does_not_fit_its_configuration_stays_whole() -> None:
    model = tiny("gpt_neox")
    model.config.num_attention_heads = 2  # its code goes on with four
    names = {module.name for module in find_modules(model)}
    assert "gpt_neox.layers.0.attention.query_key_value" in names
    assert not any("[" in name for name in names)


def test_a_map_that_is_no_attention_is_not_taken_for_one() -> None:
    model = tiny("gpt_neox")
    block = model.get_submodule("gpt_neox.layers.0.mlp")
    before = fingerprint(model)
    assert attention_parts(model, block, block.get_submodule("dense_h_to_4h"), 32) is None
    assert gate_parts(model, block, block.get_submodule("dense_h_to_4h"), 32) is None
    assert fingerprint(model) == before


def test_nothing_is_left_on_the_model_and_chance_is_not_touched() -> None:
    model = tiny("gpt2").train()
    state = torch.random.get_rng_state()
    find_modules(model)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
