"""Full tuning: the modules' own weights are trained, the whole model is stored, and the base comes back to the bit."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from core.lm.full import loaded, opened, save
from core.lm.load import BaseModel
from core.lm.modules import Module, by_map, find_modules, weight_of
from core.schemas.results import TrainedStep
from core.schemas.training import LearningPlan, TrainingSpec
from core.training.loop import Trained, train
from tests.core.helpers import encoded, fingerprint, logits, tiny_base

SPEC = TrainingSpec(method="full", steps=4, batch_size=4, warmup_ratio=0.0, schedule="constant")


def nobody(_step: TrainedStep, _total: int) -> None:
    """Listens to no step."""


def tune(base: BaseModel, modules: tuple[Module, ...], scales: dict[str, float]) -> Trained:
    """Train the modules' own weights, in place."""
    plan = LearningPlan(strategy="test", scales=dict.fromkeys((module.name for module in modules), 1.0) | scales)
    rows = encoded(base, 8)
    return train(base.model, rows, plan, SPEC, learning_rate=1e-3, pad_id=base.pad_id, on_step=nobody)


def test_modules_are_trained_each_at_its_own_rate_and_nothing_else_is(
    base: BaseModel, modules: tuple[Module, ...]
) -> None:
    some = modules[7:]  # all but the first layer's
    frozen, slow = some[0].name, some[1].name
    before = {name: value.clone() for name, value in base.model.named_parameters()}
    with opened(base.model, some):
        done = tune(base, some, {frozen: 0.0, slow: 0.1})
        moved = {
            name.removesuffix(".weight"): float((value.detach() - before[name]).abs().max())
            for name, value in base.model.named_parameters()
        }
    trained = {module.name for module in some} - {frozen}
    assert {name for name, change in moved.items() if change > 0} == trained
    assert moved[slow] < 0.2 * moved[some[2].name]
    assert done.trainable_parameters == sum(module.parameters for module in some if module.name != frozen)
    assert done.curve[-1].loss < done.curve[0].loss - 0.1


def test_the_base_comes_back_to_the_bit(base: BaseModel, modules: tuple[Module, ...]) -> None:
    before = fingerprint(base.model)

    def interrupted() -> None:
        with opened(base.model, modules):
            tune(base, modules, {})
            assert fingerprint(base.model) != before
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert fingerprint(base.model) == before
    assert not base.model.training
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in base.model.parameters())


def test_what_is_stored_is_a_model_like_any_other(base: BaseModel, modules: tuple[Module, ...], tmp_path: Path) -> None:
    before = fingerprint(base.model)
    with opened(base.model, modules):
        tune(base, modules, {})
        tuned = logits(base.model)
        files = save(base.model, base, modules, tmp_path)
    assert {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"} <= {p.name for p in files}
    assert all(str(base.folder) not in path.read_text() for path in files if path.suffix == ".json")
    elsewhere = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(logits(elsewhere), tuned)
    assert (tmp_path / "chat_template.jinja").read_text() == base.tokenizer.chat_template
    assert not torch.equal(tuned, logits(base.model))
    with loaded(base, modules, tmp_path) as model:
        assert torch.equal(logits(model), tuned)
    assert fingerprint(base.model) == before


def test_answers_end_where_a_trained_turn_does_and_keep_the_models_own_ways(base: BaseModel, tmp_path: Path) -> None:
    home, out = tmp_path / "home", tmp_path / "out"
    home.mkdir()
    (home / "generation_config.json").write_text(json.dumps({"eos_token_id": 7, "temperature": 0.6, "do_sample": True}))
    own = BaseModel(base.model, base.tokenizer, base.identity, home)
    save(own.model, own, (), out)
    found = GenerationConfig.from_pretrained(out)
    assert (found.eos_token_id, found.temperature) == (base.stop_ids, 0.6)


def test_in_bfloat16_small_updates_are_kept_while_training_and_files_are_as_the_base(
    base: BaseModel, tmp_path: Path
) -> None:
    """What a GPU does, with what a CPU can: a base in bfloat16, trained in float32 under autocast."""
    small = tiny_base("llama", base)
    small.model.bfloat16()
    modules = find_modules(small.model)
    before = fingerprint(small.model)
    model = small.model
    with opened(model, modules):
        assert {weight_of(model, module).dtype for module in modules} == {torch.float32}
        plan = LearningPlan(strategy="test", scales=dict.fromkeys((module.name for module in modules), 1.0))
        spec = SPEC.model_copy(update={"precision": "bfloat16", "max_length": 32})
        rows = [row for row in encoded(base, 60) if len(row.input_ids) <= 64][:8]
        train(model, rows, plan, spec, learning_rate=1e-6, pad_id=base.pad_id, on_step=nobody)
        assert all(not torch.equal(weight_of(model, m), weight_of(model, m).bfloat16().float()) for m in modules)
        save(model, small, modules, tmp_path)
        assert {weight_of(model, module).dtype for module in modules} == {torch.bfloat16}
    assert fingerprint(small.model) == before
    assert {value.dtype for value in AutoModelForCausalLM.from_pretrained(tmp_path).parameters()} == {torch.bfloat16}


def test_biases_and_fused_maps(base: BaseModel, tmp_path: Path) -> None:
    small = tiny_base("gpt2", base)
    modules = find_modules(small.model)
    before = fingerprint(small.model)
    rows = [row for row in encoded(base, 60) if len(row.input_ids) <= 64][:8]
    model = small.model
    with opened(model, modules):
        plan = LearningPlan(strategy="test", scales=dict.fromkeys((module.name for module in modules), 1.0))
        done = train(model, rows, plan, SPEC, learning_rate=1e-3, pad_id=base.pad_id, on_step=nobody)
        tuned = logits(model)
        save(model, small, modules, tmp_path)
    own = [each for name in by_map(modules) for each in small.model.get_submodule(name).parameters()]
    assert done.trainable_parameters == sum(each.numel() for each in own)
    with loaded(small, modules, tmp_path) as model:
        assert torch.equal(logits(model), tuned)
    assert fingerprint(small.model) == before
