"""Each part of a fused map is trained with its own factor, in adapters and in full weights, for every family."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.optim import AdamW
from transformers import PreTrainedModel

from core.data.encoded import Encoded
from core.errors import Interrupted, TrainingFailed
from core.lm import full
from core.lm.adapter import attached, factors, lora_layers
from core.lm.load import BaseModel
from core.lm.modules import Module, by_map, find_modules, own_parameters
from core.schemas.results import TrainedStep
from core.schemas.training import LearningPlan, LoraSpec, TrainingSpec
from core.storage import ArtifactStore
from core.training.checkpoint import Checkpoints
from core.training.groups import Tuned, attach_slow_rows, find_slow_rows, trained_factors
from core.training.loop import train
from tests.core.helpers import FAMILIES, encoded, fingerprint, tiny

LORA = LoraSpec(rank=2, alpha=4)
SPEC = TrainingSpec(steps=3, batch_size=4, schedule="constant", warmup_ratio=0.0, weight_decay=0.1)
FUSED = ["phi3", "gpt2", "gpt_neox", "falcon", "mixtral", "qwen2_moe", "gpt_oss"]
SHARES = {"q": 1.0, "k": 0.0, "v": 0.1, "gate": 0.0, "up": 1.0}
"""Factors by module type; other types have factor 1."""
Rows = dict[str, Tensor]


@pytest.fixture(scope="module")
def rows(base: BaseModel) -> tuple[Encoded, ...]:
    return tuple(replace(row, input_ids=row.input_ids[:48], labels=row.labels[:48]) for row in encoded(base, 20))


def plan_of(modules: tuple[Module, ...], shares: Mapping[str, float] = SHARES) -> LearningPlan:
    return LearningPlan(strategy="test", scales={module.name: shares.get(module.type, 1.0) for module in modules})


def nobody(_step: TrainedStep, _total: int) -> None:
    """Ignores the step."""


def run(tuned: Tuned, rows: tuple[Encoded, ...], plan: LearningPlan, spec: TrainingSpec = SPEC) -> None:
    train(tuned, rows, plan, spec, learning_rate=1e-2, pad_id=0, on_step=nobody)


def b_of(tuned: PeftModel, modules: tuple[Module, ...]) -> Rows:
    """The rows of B of each module."""
    found: Rows = {}
    for name, parts in by_map(modules).items():
        _, b = factors(lora_layers(tuned)[name])
        for module in parts:
            own = module.indexes()
            found[module.name] = (b if own is None else b[own]).detach().clone()
    return found


def own_of(model: PreTrainedModel, modules: tuple[Module, ...]) -> dict[str, list[Tensor]]:
    """The rows of weight and bias of each module."""
    found: dict[str, list[Tensor]] = {}
    for module in modules:
        own = module.indexes()
        found[module.name] = [
            (each if own is None else each.index_select(axis, own)).detach().clone()
            for each, axis in own_parameters(model, module)
        ]
    return found


@contextmanager
def adapter_on(family: str) -> Iterator[tuple[PeftModel, tuple[Module, ...]]]:
    model = tiny(family)
    before, found = fingerprint(model), find_modules(model)
    with attached(model, found, LORA, seed=0) as tuned:
        yield tuned, found
    assert fingerprint(model) == before


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_has_the_factor_of_its_fastest_part(family: str) -> None:
    with adapter_on(family) as (tuned, found):
        plan = plan_of(found)
        scales = trained_factors(tuned, plan)
        names = {id(parameter): name for name, parameter in tuned.named_parameters()}
        for name, layer in lora_layers(tuned).items():
            fastest = max(plan.scales[module.name] for module in by_map(found)[name])
            for each in factors(layer):
                assert scales.pop(names[id(each)], 0.0) == fastest
                assert each.requires_grad == (fastest > 0)
        assert not scales
        fused = {id(slow.parameter) for slow in find_slow_rows(tuned, plan)}
        assert len(fused) == sum(
            len({SHARES.get(part.type, 1.0) for part in parts}) > 1 for parts in by_map(found).values()
        )
        assert not find_slow_rows(tuned, plan_of(found, {}))


@pytest.mark.parametrize("family", FAMILIES)
def test_each_module_of_an_adapter_moves_with_its_own_factor(rows: tuple[Encoded, ...], family: str) -> None:
    with adapter_on(family) as (tuned, found):
        run(tuned, rows, plan_of(found, {}))
        alike = b_of(tuned, found)
    with adapter_on(family) as (tuned, found):
        run(tuned, rows, plan_of(found))
        apart = b_of(tuned, found)
    for module in found:
        share = SHARES.get(module.type, 1.0)
        if share == 0:
            assert not apart[module.name].any(), module.name
        else:
            assert apart[module.name].any(), module.name
            ratio = float(apart[module.name].abs().mean() / alike[module.name].abs().mean())
            assert ratio == pytest.approx(share, rel=0.5), module.name


@pytest.mark.parametrize("family", FUSED)
def test_slower_parts_do_not_change_the_step_of_a_fast_part(rows: tuple[Encoded, ...], family: str) -> None:
    one = SPEC.model_copy(update={"steps": 1})
    with adapter_on(family) as (tuned, found):
        run(tuned, rows, plan_of(found, {}), one)
        alike = b_of(tuned, found)
    with adapter_on(family) as (tuned, found):
        run(tuned, rows, plan_of(found), one)
        apart = b_of(tuned, found)
    for module in found:
        if module.rows is not None:
            wanted = SHARES.get(module.type, 1.0) * alike[module.name]
            torch.testing.assert_close(apart[module.name], wanted, rtol=1e-3, atol=1e-9)


def test_a_part_that_is_not_in_the_plan_is_not_trained(rows: tuple[Encoded, ...]) -> None:
    model = tiny("phi3")
    chosen = tuple(module for module in find_modules(model) if module.type in ("v", "up"))
    with attached(model, chosen, LORA, seed=0) as tuned:
        run(tuned, rows, plan_of(chosen, {}))
        after = b_of(
            tuned, tuple(module for module in find_modules(model) if "qkv" in module.name or "_up" in module.name)
        )
    assert {name.partition("[")[2].rstrip("]") for name, moved in after.items() if moved.any()} == {"v", "up"}


@pytest.mark.parametrize("family", ["llama", *FUSED])
def test_each_module_of_full_weights_moves_with_its_own_factor(rows: tuple[Encoded, ...], family: str) -> None:
    model = tiny(family)
    before, found = fingerprint(model), find_modules(model)
    was = own_of(model, found)
    with full.opened(model, found):
        run(model, rows, plan_of(found))
        now = own_of(model, found)
    for module in found:
        for one, other in zip(was[module.name], now[module.name], strict=True):
            assert torch.equal(one, other) == (SHARES.get(module.type, 1.0) == 0), module.name
    assert fingerprint(model) == before


def test_the_warm_up_phase_has_its_own_slow_rows(rows: tuple[Encoded, ...]) -> None:
    seen: list[Rows] = []
    with adapter_on("phi3") as (tuned, found):
        plan = LearningPlan(
            strategy="test",
            scales={module.name: 1.0 for module in found},
            warmup_scales={module.name: 0.0 if module.type in ("q", "down") else 1.0 for module in found},
            warmup_ratio=0.5,
        )
        spec = SPEC.model_copy(update={"steps": 4})
        train(tuned, rows, plan, spec, learning_rate=1e-2, pad_id=0, on_step=lambda *_: seen.append(b_of(tuned, found)))
    for module in found:
        frozen_first = module.type in ("q", "down")
        assert [bool(moved[module.name].any()) for moved in seen] == [not frozen_first] * 2 + [True] * 2, module.name


@pytest.mark.parametrize("family", ["gpt2", "mixtral"])
def test_a_run_with_slow_rows_resumes_with_the_same_result(
    rows: tuple[Encoded, ...], family: str, tmp_path: Path
) -> None:
    spec = SPEC.model_copy(update={"steps": 4, "checkpoint_every": 1})
    checkpoints = Checkpoints(ArtifactStore(tmp_path), "0" * 64)

    def stop(step: TrainedStep, _total: int) -> None:
        if step.step == 2:
            raise Interrupted("the test says stop")

    with adapter_on(family) as (tuned, found):
        run(tuned, rows, plan_of(found), spec)
        straight = fingerprint(tuned)
    with adapter_on(family) as (tuned, found), pytest.raises(Interrupted):
        train(tuned, rows, plan_of(found), spec, learning_rate=1e-2, pad_id=0, on_step=stop, checkpoints=checkpoints)
    with adapter_on(family) as (tuned, found):
        train(tuned, rows, plan_of(found), spec, learning_rate=1e-2, pad_id=0, on_step=nobody, checkpoints=checkpoints)
        assert fingerprint(tuned) == straight


def test_without_slow_rows_the_optimizer_gets_no_hooks() -> None:
    with adapter_on("llama") as (tuned, found):
        assert not find_slow_rows(tuned, plan_of(found))
    parameter = nn.Parameter(torch.zeros(4))
    optimizer = AdamW([parameter])
    attach_slow_rows(optimizer, tuple)
    parameter.grad = torch.ones(4)
    optimizer.step()
    assert torch.equal(parameter, torch.full((4,), parameter[0].item()))


def test_a_plan_that_freezes_everything_fails() -> None:
    with adapter_on("phi3") as (tuned, found):
        frozen = LearningPlan(strategy="test", scales={module.name: 0.0 for module in found})
        with pytest.raises(TrainingFailed) as caught:
            trained_factors(tuned, frozen)
        assert caught.value.code == "nothing_to_train"
