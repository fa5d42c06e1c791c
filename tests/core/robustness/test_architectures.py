"""Every model family passes the whole path: analysis, plan, training with its rates, saved adapter."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from core.data.encoded import Encoded
from core.lm.adapter import attached, choose, factors, loaded, lora_layers, save
from core.lm.load import BaseModel
from core.lm.modules import Module, by_map, find_modules
from core.robustness.analyse import EarlyStop, analyse
from core.schemas.analysis import (
    AnalysisSpec,
    GradientPerturbation,
    NoisePerturbation,
    Perturbation,
    ProbeSpec,
    SwapPerturbation,
)
from core.schemas.prompts import ProbePrompts
from core.schemas.robustness import RobustnessResult
from core.schemas.strategy import UniformStrategy
from core.schemas.training import LearningPlan, LoraSpec, TrainingSpec
from core.training.loop import train
from core.training.strategies import plan
from tests.core.helpers import FAMILIES, fingerprint, ignore, logits, tiny_base

LORA = LoraSpec(rank=2, alpha=4)
SPEC = TrainingSpec(steps=2, batch_size=4, schedule="constant", warmup_ratio=0.0, lora=LORA)
RATE = 1e-2
PROMPTS = ProbePrompts(
    harmful=tuple(f"{'never ' * 9}{number}" for number in range(8)),
    benign=tuple(f"{'cake ' * 9}{number}" for number in range(8)),
)
"""So different that even a random model separates them."""


@contextmanager
def tuned_on(
    base: BaseModel, modules: tuple[Module, ...], rows: tuple[Encoded, ...], rates: LearningPlan, spec: TrainingSpec
) -> Iterator[PeftModel]:
    with attached(base.model, modules, LORA, seed=spec.seed) as tuned:
        train(tuned, rows, rates, spec, learning_rate=RATE, pad_id=base.pad_id, on_step=lambda *_: None)
        yield tuned


def measured(
    base: BaseModel,
    modules: tuple[Module, ...],
    rows: tuple[Encoded, ...],
    perturbation: Perturbation,
) -> RobustnessResult:
    @contextmanager
    def probe(wanted: ProbeSpec, seed: int, _enough: EarlyStop) -> Iterator[PeftModel]:
        rates = plan(UniformStrategy(), modules, None)
        with tuned_on(
            base, modules, rows, rates, SPEC.model_copy(update={"steps": wanted.steps, "seed": seed})
        ) as tuned:
            yield tuned

    spec = AnalysisSpec(perturbation=perturbation, probes=8, min_auroc=0.5, on_no_signal="fail")
    return analyse(base, modules, spec, PROMPTS, rows, train_probe=probe, on_prepare=ignore, on_progress=ignore)


@pytest.mark.parametrize("family", FAMILIES)
def test_from_the_map_to_the_adapter(base: BaseModel, rows: tuple[Encoded, ...], family: str, tmp_path: Path) -> None:
    here = tiny_base(family, base)
    before, modules = fingerprint(here.model), choose(find_modules(here.model), LORA)
    for perturbation in (
        NoisePerturbation(relative_norm=2.0, seeds=1),
        SwapPerturbation(steps=8),
        GradientPerturbation(steps=3, seeds=1, points=32),  # so many, because ReLU has kinks
    ):
        found = measured(here, modules, rows, perturbation)
        assert [(each.module, each.type, each.parameters) for each in found.modules] == [
            (module.name, module.type, module.parameters) for module in modules
        ]
        still = [each for each in found.modules if each.refusal_drift == 0.0]
        assert not still, "a module was not moved"
        assert fingerprint(here.model) == before
    # Where an update sends a token to other experts, the loss jumps, and no gradient sees a jump.
    rel = 0.4 if any(module.bare for module in modules) else 0.01
    shares = sum(each.refusal_drift for each in found.modules)
    assert shares == pytest.approx(found.joint_refusal_drift, rel=rel, abs=1e-4), "gradients do not add up"

    # The weaker half of each type is frozen: fused maps get parts of both kinds.
    order = sorted(found.modules, key=lambda each: (each.type, each.refusal_drift))
    frozen = {each.module for each in order[::2]}
    rates = LearningPlan(strategy="test", scales={module.name: float(module.name not in frozen) for module in modules})
    with tuned_on(here, modules, rows, rates, SPEC) as tuned:
        layers = lora_layers(tuned)
        for name, parts in by_map(modules).items():
            _, b = factors(layers[name])
            for module in parts:
                own = module.indexes()
                assert bool((b if own is None else b[own]).any()) == (module.name not in frozen), module.name
        wanted = logits(tuned)
        save(tuned, here, tmp_path)
    with loaded(here, tmp_path) as again:
        assert torch.equal(logits(again), wanted)
    assert fingerprint(here.model) == before
