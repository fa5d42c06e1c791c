"""The whole update is scaled, by a given factor or by the largest one that keeps refusals."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.attacks.prompts import choose_prompts
from core.catalog import TESTBED
from core.lm import full
from core.lm.adapter import attached, factors, lora_layers
from core.lm.load import BaseModel
from core.lm.modules import find_modules
from core.safeguards import TrainedContext
from core.safeguards.base_answers import BaseAnswers
from core.safeguards.scale_update import UpdateScale, apply_factor
from core.schemas.safeguards import ScaleUpdate
from core.schemas.security import SecuritySpec
from core.schemas.training import LoraSpec
from core.training.loop import RefusalNll, Trained
from tests.core.helpers import FAMILIES, logits, tiny_base
from tests.core.jobs import SPEC

TRAINED = Trained(steps=1, curve=(), trainable_parameters=1, seconds=0.0, end_step=1)


@dataclass(frozen=True)
class Tuned:
    """A tiny model with a random update."""

    model: PeftModel | PreTrainedModel
    context: TrainedContext
    updated: Mapping[nn.Parameter, Tensor]
    """The updated values of the parameters that are scaled."""

    def scale(self, options: ScaleUpdate) -> dict[str, float]:
        return UpdateScale(options).after_training(self.context, self.model).values


@contextmanager
def tuned_on(base: BaseModel, method: str, family: str = "llama", nll: RefusalNll | None = None) -> Iterator[Tuned]:
    small = tiny_base(family, base)
    modules, prompts = find_modules(small.model), choose_prompts(SecuritySpec(), base.folder)

    def context(originals: full.Originals) -> TrainedContext:
        return TrainedContext(
            SPEC,
            TESTBED,
            small,
            modules,
            prompts,
            BaseAnswers(small),
            trained=TRAINED,
            originals=originals,
            refusal_nll=nll,
        )

    def update(parameters: list[nn.Parameter]) -> dict[nn.Parameter, Tensor]:
        chance = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for each in parameters:
                each.add_(torch.randn(each.shape, generator=chance), alpha=0.1)
        return {each: each.detach().clone() for each in parameters}

    if method == "full":
        with full.opened(small.model, modules) as originals:
            yield Tuned(small.model, context(originals), update(list(originals)))
    else:
        with attached(small.model, modules, LoraSpec(rank=2, alpha=4), seed=0) as adapted:
            parameters = [factors(layer)[1] for layer in lora_layers(adapted).values()]
            yield Tuned(adapted, context({}), update(parameters))


def test_b_of_every_layer_is_multiplied_and_a_is_unchanged(base: BaseModel) -> None:
    with tuned_on(base, "lora") as tuned:
        before = {name: value.detach().clone() for name, value in tuned.model.named_parameters()}
        assert tuned.scale(ScaleUpdate(factor=0.25)) == {"factor": 0.25}
        scaled = {name for name, value in tuned.model.named_parameters() if not torch.equal(value, before[name])}
        assert scaled == {name for name in before if ".lora_B." in name}
        for name in scaled:
            torch.testing.assert_close(tuned.model.get_parameter(name).detach(), 0.25 * before[name])


@pytest.mark.parametrize("family", ["gpt2", "mixtral"])
def test_fused_maps_and_experts_are_scaled(base: BaseModel, family: str) -> None:
    with tuned_on(base, "lora", family) as tuned:
        tuned.scale(ScaleUpdate(factor=0.5))
        assert len(tuned.updated) > 2
        for parameter, updated in tuned.updated.items():
            assert torch.equal(parameter, 0.5 * updated)
    assert family in FAMILIES


def test_own_weights_move_towards_the_base_model(base: BaseModel) -> None:
    with tuned_on(base, "full") as tuned:
        tuned.scale(ScaleUpdate(factor=0.3))
        for parameter, updated in tuned.updated.items():
            original = tuned.context.originals[parameter]
            torch.testing.assert_close(parameter.detach(), original + 0.3 * (updated - original))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_factor_1_is_the_update_as_trained_to_the_bit(base: BaseModel, method: str) -> None:
    with tuned_on(base, method, nll=lambda _: 1.0) as tuned:
        before = logits(tuned.model)
        assert tuned.scale(ScaleUpdate(max_refusal_drift=0.0)) == {"factor": 1.0, "refusal_drift": 0.0}
        assert all(torch.equal(parameter, updated) for parameter, updated in tuned.updated.items())
        assert torch.equal(logits(tuned.model), before)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_largest_factor_within_the_bound_is_found_from_the_base_model(base: BaseModel, method: str) -> None:
    unchanged = logits(tiny_base("llama", base).model)
    distances: list[float] = []

    def nll(model: nn.Module) -> float:
        distances.append(float((logits(model) - unchanged).norm()))
        return 3.0 + distances[-1]

    with tuned_on(base, method, nll=nll) as tuned:
        whole = float((logits(tuned.model) - unchanged).norm())
        values = tuned.scale(ScaleUpdate(max_refusal_drift=0.55 * whole))
        assert distances[0] == 0, "factor 0 is the base model"
        assert distances[1] == pytest.approx(whole)
        assert values == {"factor": pytest.approx(1.1 - 0.1 * (len(distances) - 1)), "refusal_drift": distances[-1]}
        assert distances[-2] > 0.55 * whole >= distances[-1] > 0
        assert float((logits(tuned.model) - unchanged).norm()) == distances[-1], "the model is left with this factor"


def test_without_a_factor_within_the_bound_the_smallest_is_used_and_named() -> None:
    applied: list[float] = []

    def measure(factor: float) -> float:
        applied.append(factor)
        return 1.0 + 10 * factor

    effect = apply_factor(ScaleUpdate(max_refusal_drift=0.75), measure)
    assert applied == [0.0, *ScaleUpdate.grid]
    assert effect.values == {"factor": 0.1, "refusal_drift": pytest.approx(1.0)}
    assert effect.summary == (
        "update scaled by 0.1, with a refusal drift of 1 nats per token; no factor stays within 0.75, and this is the "
        "smallest one"
    )


def test_the_default_bound_is_a_fifth_of_a_nat() -> None:
    effect = apply_factor(ScaleUpdate(), lambda factor: 2.0 + 0.27 * factor)
    assert effect.values == {"factor": 0.7, "refusal_drift": pytest.approx(0.189)}
    assert effect.summary == "update scaled by 0.7, with a refusal drift of 0.19 nats per token"


def test_a_given_factor_reports_its_drift_if_there_are_refusals() -> None:
    assert apply_factor(ScaleUpdate(factor=0.4), lambda factor: 5 * factor).values == {
        "factor": 0.4,
        "refusal_drift": 2,
    }
    unmeasured = apply_factor(ScaleUpdate(factor=0.4), lambda _: math.nan)
    assert (unmeasured.values, unmeasured.summary) == ({"factor": 0.4}, "update scaled by 0.4")


def test_a_drift_that_is_not_a_number_is_outside_every_bound() -> None:
    effect = apply_factor(ScaleUpdate(max_refusal_drift=100), lambda factor: math.nan if factor > 0.35 else 1.0)
    assert effect.values == {"factor": 0.3, "refusal_drift": 0.0}
