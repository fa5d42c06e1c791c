"""Modules are moved exactly as asked, each on its own, and put back to the bit."""

from collections.abc import Iterator

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from core.lm.adapter import attached, module_of
from core.lm.load import BaseModel
from core.lm.modules import Module, find_modules, weight_of
from core.robustness.perturb import Noise, Swap
from core.spec.training import LoraSpec
from tests.core.helpers import fingerprint, logits, tiny


def weights(base: BaseModel, modules: tuple[Module, ...]) -> dict[str, torch.Tensor]:
    return {module.name: weight_of(base.model, module).detach().clone() for module in modules}


@pytest.mark.parametrize("names", [(0,), (3, 17), (41, 0, 5), ()])
def test_noise_moves_what_was_named_by_the_norm_that_was_asked(
    base: BaseModel, modules: tuple[Module, ...], names: tuple[int, ...]
) -> None:
    chosen = {modules[number].name for number in names}
    before = weights(base, modules)
    whole = fingerprint(base.model)
    with Noise(base.model, modules, relative_norm=0.3, seed=0).moved(sorted(chosen)):
        for name, weight in weights(base, modules).items():
            moved = float((weight - before[name]).norm() / before[name].norm())
            assert moved == pytest.approx(0.3 if name in chosen else 0.0, rel=1e-4), name
    assert fingerprint(base.model) == whole


def test_noise_of_a_module_is_the_same_whoever_else_moves(base: BaseModel, modules: tuple[Module, ...]) -> None:
    noise = Noise(base.model, modules, relative_norm=0.1, seed=5)
    name, other = modules[7].name, modules[2].name
    with noise.moved([name]):
        alone = weights(base, modules)[name]
    with noise.moved([other, name]):
        together = weights(base, modules)[name]
    with Noise(base.model, modules, relative_norm=0.1, seed=6).moved([name]):
        reseeded = weights(base, modules)[name]
    assert torch.equal(alone, together)
    assert not torch.equal(alone, reseeded)


def test_two_modules_of_one_shape_get_noise_of_their_own(base: BaseModel, modules: tuple[Module, ...]) -> None:
    q, k = (next(module for module in modules if module.type == kind) for kind in ("q", "k"))
    before = weights(base, modules)
    with Noise(base.model, modules, relative_norm=0.1, seed=0).moved([q.name, k.name]):
        after = weights(base, modules)
    one, other = (after[module.name] - before[module.name] for module in (q, k))
    cosine = torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0)
    assert abs(float(cosine)) < 0.05


@pytest.mark.parametrize("names", [["model.layers.0.self_attn.q_proj", "nothing"], ["model.layers.0.mlp.up_proj"] * 2])
def test_noise_is_taken_back_to_the_bit_whatever_happens(
    base: BaseModel, modules: tuple[Module, ...], names: list[str]
) -> None:
    before, alone = fingerprint(base.model), logits(base.model)

    def break_off() -> None:
        with Noise(base.model, modules, relative_norm=3.0, seed=0).moved(names):
            assert not torch.equal(logits(base.model), alone)
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, KeyError)):
        break_off()
    assert fingerprint(base.model) == before
    assert torch.equal(logits(base.model), alone)


def test_noise_is_taken_back_in_half_precision_too() -> None:
    model = tiny("llama").bfloat16()
    before, found = fingerprint(model), find_modules(model)
    with Noise(model, found, relative_norm=0.3, seed=0).moved([module.name for module in found]):
        assert fingerprint(model) != before
    assert fingerprint(model) == before


@pytest.fixture
def tuned(base: BaseModel, modules: tuple[Module, ...]) -> Iterator[PeftModel]:
    """An adapter whose every module changes something."""
    with attached(base.model, modules, LoraSpec(rank=2, alpha=4), seed=0) as tuned:
        with torch.no_grad():
            for name, parameter in tuned.named_parameters():
                if ".lora_B" in name:
                    parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(1))
        yield tuned.eval()


def test_swap_goes_from_base_to_tuned_module_by_module(
    base: BaseModel, modules: tuple[Module, ...], tuned: PeftModel
) -> None:
    full = logits(tuned)
    with tuned.disable_adapter():
        alone = logits(tuned)
    swap = Swap(tuned)
    names = [module.name for module in modules]
    with swap.moved(()):
        assert torch.equal(logits(tuned), alone)
    with swap.moved(names):
        assert torch.equal(logits(tuned), full)
    seen = {alone.numpy().tobytes(), full.numpy().tobytes()}
    for name in names:
        with swap.moved([name]):
            seen.add(logits(tuned).numpy().tobytes())
    assert len(seen) == 2 + len(names)
    assert torch.equal(logits(tuned), alone)


def test_swap_of_one_module_is_its_update_and_no_other(
    base: BaseModel, modules: tuple[Module, ...], tuned: PeftModel
) -> None:
    name = modules[10].name
    with Swap(tuned).moved([name]):
        found = logits(tuned)
    with torch.no_grad():
        for parameter_name, parameter in tuned.named_parameters():
            if ".lora_B" in parameter_name and module_of(parameter_name) != name:
                parameter.zero_()
    for layer in tuned.modules():
        if isinstance(layer, LoraLayer):
            layer.scaling["default"] = 2.0  # alpha / rank
    assert torch.equal(logits(tuned), found)


def test_swap_is_switched_off_after_a_failure(base: BaseModel, modules: tuple[Module, ...], tuned: PeftModel) -> None:
    with tuned.disable_adapter():
        alone = logits(tuned)
    with pytest.raises(KeyboardInterrupt), Swap(tuned).moved([modules[0].name]):
        raise KeyboardInterrupt
    assert torch.equal(logits(tuned), alone)
