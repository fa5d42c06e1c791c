"""Gradient shares equal the slopes of small perturbations and add up to the effect of the whole update."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy

import numpy as np
import pytest
import torch
from peft import PeftModel

from core.data.encoded import Encoded
from core.lm.adapter import base_model, factors, lora_layers
from core.lm.load import BaseModel
from core.lm.modules import Module, by_map, find_modules
from core.robustness.gradient import attribute
from core.robustness.probe_activations import Effect, Measurement, ProbeActivations, effect
from core.schemas.analysis import Proxy
from tests.core.helpers import fingerprint, tiny_base
from tests.core.robustness.conftest import activations_of, changed

FAMILIES = ["llama", "gemma2", "phi3", "gpt2", "gpt_neox", "falcon", "gpt_oss"]
"""Without families in which a small perturbation routes a token to other experts: the loss has no slope there."""
FUSED = ["phi3", "gpt2", "gpt_neox", "mixtral", "gpt_oss"]
STEP = 0.02


def numbers(found: Effect) -> list[float]:
    return [found.feature_drift, found.refusal_drift, found.task_gain]


@contextmanager
def at(tuned: PeftModel, place: float, modules: Sequence[Module] = (), own: float = 0.0) -> Iterator[None]:
    """Every update scaled by `place`, but those of `modules` by `own`, by way of the numbers in B."""
    parts = by_map(find_modules(base_model(tuned)))
    before = []
    try:
        with torch.no_grad():
            for name, layer in lora_layers(tuned).items():
                _, b = factors(layer)
                before.append((b, b.clone()))
                scales = torch.full((len(b), 1), place)
                for module in parts[name]:
                    if module in modules:
                        rows = module.indexes()
                        scales[slice(None) if rows is None else rows] = own
                b.mul_(scales)
        yield
    finally:
        with torch.no_grad():
            for b, whole in before:
                b.copy_(whole)


def measure(
    activations: ProbeActivations, tuned: PeftModel, place: float, modules: Sequence[Module] = (), own: float = 0
) -> Measurement:
    with at(tuned, place, modules, own):
        return activations.measure(tuned)


def shares_of(
    activations: ProbeActivations, tuned: PeftModel, modules: Sequence[Module], points: int
) -> tuple[dict[str, Effect], int]:
    measured: list[None] = []
    found = attribute(activations, tuned, modules, points=points, on_point=lambda: measured.append(None))
    return {name: first + second for name, (first, second) in found.items()}, len(measured)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_share_at_one_point_is_the_slope_there(base: BaseModel, rows: tuple[Encoded, ...], family: str) -> None:
    here = tiny_base(family, base)
    activations, modules = activations_of(here, rows), find_modules(here.model)
    with changed(here, 0.03) as tuned:
        found, measured = shares_of(activations, tuned, modules, points=1)
        assert measured == 1
        assert list(found) == [module.name for module in modules]
        largest = np.abs([numbers(each) for each in found.values()]).max(axis=0)
        for module in modules[: len(modules) // 2]:
            less, more = (measure(activations, tuned, 0.5, [module], 0.5 + move) for move in (-STEP, STEP))
            slope = np.array(numbers(effect(less, more))) / (2 * STEP)
            assert np.abs(numbers(found[module.name]) - slope).max() <= 0.02 * largest.max() + 1e-3, module.name
            assert any(numbers(found[module.name])), "nothing was moved"


@pytest.mark.parametrize("family", FUSED)
def test_parts_of_a_fused_map_share_its_effect(base: BaseModel, rows: tuple[Encoded, ...], family: str) -> None:
    here = tiny_base(family, base)
    activations, modules = activations_of(here, rows), find_modules(here.model)
    parts = next(each for each in by_map(modules).values() if len(each) > 1)
    # At this size no token of these rows changes its experts within a step: across such a jump there is no slope.
    with changed(here, 0.04) as tuned:
        found, _ = shares_of(activations, tuned, modules, points=1)
        less, more = (measure(activations, tuned, 0.5, parts, 0.5 + move) for move in (-STEP, STEP))
        slope = np.array(numbers(effect(less, more))) / (2 * STEP)
        together = np.sum([numbers(found[part.name]) for part in parts], axis=0)
        assert together == pytest.approx(slope, abs=0.02 * np.abs(slope).max() + 1e-3)
        assert len({each.refusal_drift for each in found.values()}) == len(found)


@pytest.mark.parametrize("family", ["llama", "gemma2", "phi3", "gpt2"])
def test_all_shares_add_up_to_the_effect_of_the_whole_update(
    base: BaseModel, rows: tuple[Encoded, ...], family: str
) -> None:
    here = tiny_base(family, base)
    activations, modules = activations_of(here, rows), find_modules(here.model)
    with changed(here, 0.1) as tuned:
        joint = np.array(numbers(effect(measure(activations, tuned, 0.0), measure(activations, tuned, 1.0))))
        off = []
        for points in (1, 8):
            found, measured = shares_of(activations, tuned, modules, points=points)
            assert measured == points
            off.append(np.abs(np.sum([numbers(each) for each in found.values()], axis=0) - joint).max())
    assert np.abs(joint).max() > 0.02, "the update does nothing"
    assert off[1] <= 0.01 * np.abs(joint).max() + 5e-4
    assert off[1] < off[0]


def only_half(activations: ProbeActivations, half: int) -> ProbeActivations:
    found = copy(activations)
    found.refusals = copy(activations.refusals)
    found.refusals.batches = [batch for batch in activations.harmful if batch.half == half]
    found.task = [batch for batch in activations.task if batch.half == half]
    return found


def test_halves_add_up_to_the_map_and_equal_the_maps_of_their_prompts(
    base: BaseModel, rows: tuple[Encoded, ...]
) -> None:
    here = tiny_base("llama", base)
    whole, modules = activations_of(here, rows), find_modules(here.model)
    share = whole.share(0, of=1)
    with changed(here, 0.1) as tuned:
        halves = attribute(share, tuned, modules, points=1, on_point=lambda: None)
        together, _ = shares_of(whole, tuned, modules, points=1)
        alone = [shares_of(only_half(share, half), tuned, modules, points=1)[0] for half in (0, 1)]
    for name, (first, second) in halves.items():
        assert numbers(first + second) == pytest.approx(numbers(together[name]), rel=1e-3, abs=1e-6)
        for half, own in zip((first, second), alone, strict=True):
            assert numbers(half * 2.0) == pytest.approx(numbers(own[name]), rel=1e-3, abs=1e-6)
        assert first != second


@pytest.mark.parametrize(("proxy", "field"), [("refusal_drift", 1), ("feature_drift", 0)])
def test_one_drift_can_be_measured_alone(base: BaseModel, rows: tuple[Encoded, ...], proxy: Proxy, field: int) -> None:
    here = tiny_base("llama", base)
    activations, modules = activations_of(here, rows), find_modules(here.model)
    with changed(here, 0.1) as tuned:
        whole, _ = shares_of(activations, tuned, modules, points=1)
        found = attribute(activations, tuned, modules, points=1, on_point=lambda: None, only=proxy)
    for name, (first, second) in found.items():
        wanted = [0.0, 0.0, 0.0]
        wanted[field] = numbers(whole[name])[field]
        assert numbers(first + second) == pytest.approx(wanted, rel=1e-4, abs=1e-7)


def test_only_the_requested_modules_get_shares(base: BaseModel, rows: tuple[Encoded, ...]) -> None:
    here = tiny_base("llama", base)
    activations, modules = activations_of(here, rows), find_modules(here.model)
    with changed(here, 0.1) as tuned:
        whole, _ = shares_of(activations, tuned, modules, points=2)
        few, _ = shares_of(activations, tuned, modules[3:5], points=2)
    assert few == {module.name: whole[module.name] for module in modules[3:5]}


def test_the_model_is_left_as_it_was(base: BaseModel, rows: tuple[Encoded, ...]) -> None:
    here = tiny_base("phi3", base)
    activations, modules = activations_of(here, rows), find_modules(here.model)

    def stop() -> None:
        raise KeyboardInterrupt

    with changed(here, 0.1) as tuned:
        before, asking = fingerprint(tuned), [each.requires_grad for each in tuned.parameters()]
        scaling = [dict(layer.scaling) for layer in lora_layers(tuned).values()]
        shares_of(activations, tuned, modules, points=1)
        with pytest.raises(KeyboardInterrupt):
            attribute(activations, tuned, modules, points=1, on_point=stop)
        assert fingerprint(tuned) == before
        assert [each.requires_grad for each in tuned.parameters()] == asking
        assert [dict(layer.scaling) for layer in lora_layers(tuned).values()] == scaling
        assert all(each.grad is None for each in tuned.parameters())
