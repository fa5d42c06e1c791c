"""Exactly the named modules are perturbed, and they are restored bit for bit."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol, cast

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from core.errors import InvalidInput
from core.lm.adapter import attached, factors, lora_layers
from core.lm.load import BaseModel
from core.lm.modules import Module, by_map, find_modules, weight_of
from core.robustness.perturb import Noise, Swap
from core.schemas.training import LoraSpec
from tests.core.helpers import FAMILIES, fingerprint, logits, module_of, tiny


def weights(base: BaseModel, modules: tuple[Module, ...]) -> dict[str, torch.Tensor]:
    return {module.name: weight_of(base.model, module).detach().clone() for module in modules}


@pytest.mark.parametrize("names", [(0,), (3, 17), (41, 0, 5), ()])
def test_noise_has_the_requested_norm_and_changes_named_modules_only(
    base: BaseModel, modules: tuple[Module, ...], names: tuple[int, ...]
) -> None:
    chosen = {modules[number].name for number in names}
    before = weights(base, modules)
    whole = fingerprint(base.model)
    with Noise(base.model, modules, relative_norm=0.3, seed=0).perturbed(sorted(chosen)):
        for name, weight in weights(base, modules).items():
            perturbed = float((weight - before[name]).norm() / before[name].norm())
            assert perturbed == pytest.approx(0.3 if name in chosen else 0.0, rel=1e-4), name
    assert fingerprint(base.model) == whole


def test_noise_of_a_module_does_not_depend_on_other_modules(base: BaseModel, modules: tuple[Module, ...]) -> None:
    noise = Noise(base.model, modules, relative_norm=0.1, seed=5)
    name, other = modules[7].name, modules[2].name
    with noise.perturbed([name]):
        alone = weights(base, modules)[name]
    with noise.perturbed([other, name]):
        together = weights(base, modules)[name]
    with Noise(base.model, modules, relative_norm=0.1, seed=6).perturbed([name]):
        reseeded = weights(base, modules)[name]
    assert torch.equal(alone, together)
    assert not torch.equal(alone, reseeded)


def test_two_modules_of_one_shape_get_different_noise(base: BaseModel, modules: tuple[Module, ...]) -> None:
    q, k = (next(module for module in modules if module.type == kind) for kind in ("q", "k"))
    before = weights(base, modules)
    with Noise(base.model, modules, relative_norm=0.1, seed=0).perturbed([q.name, k.name]):
        after = weights(base, modules)
    one, other = (after[module.name] - before[module.name] for module in (q, k))
    cosine = torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0)
    assert abs(float(cosine)) < 0.05


@pytest.mark.parametrize("names", [["model.layers.0.self_attn.q_proj", "nothing"], ["model.layers.0.mlp.up_proj"] * 2])
def test_noise_is_removed_bit_for_bit_after_errors_too(
    base: BaseModel, modules: tuple[Module, ...], names: list[str]
) -> None:
    before, alone = fingerprint(base.model), logits(base.model)

    def break_off() -> None:
        with Noise(base.model, modules, relative_norm=3.0, seed=0).perturbed(names):
            assert not torch.equal(logits(base.model), alone)
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, KeyError)):
        break_off()
    assert fingerprint(base.model) == before
    assert torch.equal(logits(base.model), alone)


def test_noise_is_removed_in_half_precision_too() -> None:
    model = tiny("llama").bfloat16()
    before, found = fingerprint(model), find_modules(model)
    with Noise(model, found, relative_norm=0.3, seed=0).perturbed([module.name for module in found]):
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
    with swap.perturbed(()):
        assert torch.equal(logits(tuned), alone)
    with swap.perturbed(names):
        assert torch.equal(logits(tuned), full)
    seen = {alone.numpy().tobytes(), full.numpy().tobytes()}
    for name in names:
        with swap.perturbed([name]):
            seen.add(logits(tuned).numpy().tobytes())
    assert len(seen) == 2 + len(names)
    assert torch.equal(logits(tuned), alone)


def test_a_scaled_swap_multiplies_the_update(modules: tuple[Module, ...], tuned: PeftModel) -> None:
    name = modules[10].name
    swap = Swap(tuned)
    with swap.perturbed([name]):
        once = logits(tuned)
    with swap.scaled(2.5).perturbed([name]):
        scaled = logits(tuned)
    with swap.perturbed([name]):
        assert torch.equal(logits(tuned), once), "the other is as before"
    _, b = factors(lora_layers(tuned)[name])
    with torch.no_grad():
        b.mul_(2.5)
    with swap.perturbed([name]):
        assert torch.allclose(logits(tuned), scaled, atol=1e-5)
    assert not torch.allclose(once, scaled, atol=1e-2)


def test_swap_of_one_module_applies_only_its_update(
    base: BaseModel, modules: tuple[Module, ...], tuned: PeftModel
) -> None:
    name = modules[10].name
    with Swap(tuned).perturbed([name]):
        found = logits(tuned)
    with torch.no_grad():
        for parameter_name, parameter in tuned.named_parameters():
            if ".lora_B" in parameter_name and module_of(parameter_name) != name:
                parameter.zero_()
    for layer in tuned.modules():
        if isinstance(layer, LoraLayer):
            layer.enable_adapters(True)
            layer.scaling["default"] = 2.0  # alpha / rank
    assert torch.equal(logits(tuned), found)


def test_swap_is_switched_off_after_a_failure(base: BaseModel, modules: tuple[Module, ...], tuned: PeftModel) -> None:
    with tuned.disable_adapter():
        alone = logits(tuned)
    with pytest.raises(KeyboardInterrupt), Swap(tuned).perturbed([modules[0].name]):
        raise KeyboardInterrupt
    assert torch.equal(logits(tuned), alone)


def tuned_on(model: PreTrainedModel, stack: ExitStack) -> PeftModel:
    """A tiny model with an adapter whose every module changes something."""
    tuned = stack.enter_context(attached(model, find_modules(model), LoraSpec(rank=2, alpha=4), seed=0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(std=0.3, generator=generator)
    return tuned.eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_noise_on_each_type_changes_its_own_part_and_leaves_nothing(family: str) -> None:
    model = tiny(family)
    found = find_modules(model)
    alone, before = logits(model), fingerprint(model)
    weights = {module.map: weight_of(model, module).clone() for module in found}
    noise = Noise(model, found, relative_norm=0.5, seed=0)
    for module in found[: len(found) // 2]:
        own = own_part(module, weights[module.map])
        with noise.perturbed([module.name]):
            assert not torch.equal(logits(model), alone), module.name
            for name, other in weights.items():
                change = weight_of(model, by_map(found)[name][0]) - other
                wanted = 0.5 * float(own.norm()) if name == module.map else 0.0
                assert float(change.norm()) == pytest.approx(wanted, rel=1e-4)
                if name == module.map:
                    assert float(own_part(module, change).norm()) == pytest.approx(wanted, rel=1e-4)
        assert torch.equal(logits(model), alone)
    assert fingerprint(model) == before


def own_part(module: Module, whole: torch.Tensor) -> torch.Tensor:
    rows = module.indexes()
    return whole if rows is None else whole.index_select(module.axis, rows)


@pytest.mark.parametrize("family", ["phi3", "gpt2", "gpt_neox", "mixtral", "gpt_oss"])
def test_perturbing_all_parts_perturbs_the_whole_map(family: str) -> None:
    model = tiny(family).bfloat16()
    found = find_modules(model)
    fused = next(parts for parts in by_map(found).values() if len(parts) > 1)
    before = fingerprint(model)
    whole = weight_of(model, fused[0]).clone()
    noise = Noise(model, found, relative_norm=0.5, seed=0)
    apart = torch.zeros(whole.shape)
    for module in fused:
        with noise.perturbed([module.name]):
            apart += (weight_of(model, module) - whole).float()
    with noise.perturbed([module.name for module in fused]):
        assert torch.equal((weight_of(model, fused[0]) - whole).float(), apart)
    assert fingerprint(model) == before


@pytest.mark.parametrize("family", FAMILIES)
def test_swap_on_each_type_changes_its_own_part_and_leaves_nothing(family: str) -> None:
    model = tiny(family)
    found = find_modules(model)
    alone, before = logits(model), fingerprint(model)
    with ExitStack() as stack:
        tuned = tuned_on(model, stack)
        full = logits(tuned)
        trained = fingerprint(tuned)
        swap = Swap(tuned)
        with swap.perturbed([module.name for module in found]):
            assert torch.equal(logits(tuned), full)
            assert fingerprint(tuned) == trained
        with swap.perturbed([]):
            torch.testing.assert_close(logits(tuned), alone, atol=1e-6, rtol=0)
        seen = []
        for module in found[: len(found) // 2]:
            with swap.perturbed([module.name]):
                seen.append(logits(tuned))
        assert all(not torch.allclose(one, alone, atol=1e-6) for one in seen)
        assert len({one.numpy().tobytes() for one in seen}) == len(seen)
        assert fingerprint(tuned) == trained, "the trained update was left changed"
    assert fingerprint(model) == before


class _Updates(Protocol):
    """What peft's layers share, which their base class does not say."""

    def get_delta_weight(self, adapter: str) -> torch.Tensor: ...


@pytest.mark.parametrize("family", ["phi3", "gpt2", "gpt_neox", "mixtral", "gpt_oss"])
def test_swap_of_a_part_is_its_rows_of_the_update(family: str) -> None:
    model = tiny(family)
    fused = next(parts for parts in by_map(find_modules(model)).values() if len(parts) > 1)
    plain = weight_of(model, fused[0]).clone()
    with ExitStack() as stack:
        tuned = tuned_on(model, stack)
        swap = Swap(tuned)
        update = cast(_Updates, lora_layers(tuned)[fused[0].map]).get_delta_weight("default")
        found = {}
        for module in fused:
            with swap.perturbed([module.name]):
                found[module.name] = logits(tuned)
    for module in fused:
        with torch.no_grad():
            rows = module.indexes()
            assert rows is not None
            weight_of(model, module).index_add_(module.axis, rows, update.index_select(module.axis, rows))
        torch.testing.assert_close(found[module.name], logits(model), atol=1e-5, rtol=0)
        with torch.no_grad():
            weight_of(model, module).copy_(plain)


def test_noise_on_4_bit_weights_fails_with_advice() -> None:
    model = tiny("llama")
    found = find_modules(model)
    part = model.get_submodule(found[0].name)
    part.weight = torch.nn.Parameter(torch.zeros(128, 1, dtype=torch.uint8), requires_grad=False)  # as 4 bits are kept
    with pytest.raises(InvalidInput) as caught:
        Noise(model, found, relative_norm=0.1, seed=0)
    assert caught.value.code == "noise_needs_full_precision"
    Noise(model, found[1:], relative_norm=0.1, seed=0)
