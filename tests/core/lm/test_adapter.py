"""An adapter changes the model only while it is on, and only once trained; what is saved is exact and portable."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.catalog import TESTBED
from core.errors import InvalidInput
from core.lm.adapter import attached, choose, factors, loaded, lora_layers, save
from core.lm.load import BaseModel, load
from core.lm.modules import Module, by_map, find_modules
from core.schemas.training import LoraSpec
from tests.core.helpers import FAMILIES, fingerprint, logits, module_of, tiny, tiny_base

LORA = LoraSpec(rank=4, alpha=8)


def move(tuned: PeftModel) -> None:
    """Stands in for training: an update that is not zero."""
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(3))


def lora(tuned: PeftModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in tuned.state_dict().items() if ".lora_" in name}


def assert_as_before(base: BaseModel, before: str) -> None:
    assert fingerprint(base.model) == before
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert not hasattr(base.model, "peft_config")
    assert type(base.model.get_submodule("model.layers.0.self_attn.q_proj")) is nn.Linear


def test_a_fresh_adapter_changes_nothing(base: BaseModel, modules: tuple[Module, ...]) -> None:
    alone = logits(base.model)
    with attached(base.model, modules, LORA, seed=0) as tuned:
        assert torch.equal(logits(tuned), alone)
        trainable = {name for name, parameter in tuned.named_parameters() if parameter.requires_grad}
        assert trainable == set(lora(tuned))
        assert {module_of(name) for name in trainable} == {module.name for module in modules}


def test_the_base_is_as_before_whatever_happens(base: BaseModel, modules: tuple[Module, ...]) -> None:
    before, alone = fingerprint(base.model), logits(base.model)

    def break_off() -> None:
        with attached(base.model, modules, LORA, seed=0) as tuned:
            tuned.train()
            move(tuned)
            assert not torch.equal(logits(tuned), alone)
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            break_off()
        assert_as_before(base, before)
        assert torch.equal(logits(base.model), alone)


def test_the_seed_decides_the_first_weights_and_disturbs_nobody(base: BaseModel, modules: tuple[Module, ...]) -> None:
    def first(seed: int) -> dict[str, torch.Tensor]:
        with attached(base.model, modules, LORA, seed=seed) as tuned:
            return lora(tuned)

    torch.manual_seed(11)
    state = torch.random.get_rng_state()
    one, again, other = first(1), first(1), first(2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one if ".lora_A" in name)


def test_a_saved_adapter_is_the_one_that_was_trained(
    base: BaseModel, modules: tuple[Module, ...], tmp_path: Path
) -> None:
    before, alone = fingerprint(base.model), logits(base.model)
    with attached(base.model, modules, LORA, seed=0) as tuned:
        move(tuned)
        wanted = logits(tuned)
        files = save(tuned, base, tmp_path)
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"} <= {
        path.name for path in files
    }
    assert set(files) == {path for path in tmp_path.rglob("*") if path.is_file()}
    assert not torch.equal(wanted, alone)

    plain = AutoModelForCausalLM.from_pretrained(base.folder)
    assert torch.equal(logits(PeftModel.from_pretrained(plain, tmp_path).eval()), wanted)
    found = AutoTokenizer.from_pretrained(tmp_path)
    assert found is not None
    assert found.chat_template == base.tokenizer.chat_template
    with loaded(base, tmp_path) as again:
        assert torch.equal(logits(again), wanted)
        assert not again.training
    assert_as_before(base, before)
    with pytest.raises(KeyboardInterrupt), loaded(base, tmp_path):
        raise KeyboardInterrupt
    assert_as_before(base, before)


def test_what_is_saved_is_the_same_every_time_and_names_no_path(
    base: BaseModel, modules: tuple[Module, ...], tmp_path: Path
) -> None:
    def saved(folder: Path) -> dict[str, bytes]:
        with attached(base.model, modules, LORA, seed=0) as tuned:
            return {path.name: path.read_bytes() for path in save(tuned, base, folder)}

    one, other = saved(tmp_path / "one"), saved(tmp_path / "other")
    assert one == other
    for name, content in one.items():
        for path in (base.folder, tmp_path):
            assert str(path).encode() not in content, name
    config = json.loads(one["adapter_config.json"])
    assert config["base_model_name_or_path"] == base.identity.name
    assert config["inference_mode"] is True
    assert config["target_modules"] == sorted(config["target_modules"])
    assert (config["r"], config["lora_alpha"]) == (4, 8)
    assert "README.md" not in one


def test_saving_ends_no_training(base: BaseModel, modules: tuple[Module, ...], tmp_path: Path) -> None:
    with attached(base.model, modules, LORA, seed=0) as tuned:
        save(tuned, base, tmp_path)
        assert any(parameter.requires_grad for parameter in tuned.parameters())


def test_only_lora_with_a_list_of_targets_is_saved(
    base: BaseModel, modules: tuple[Module, ...], tmp_path: Path
) -> None:
    with attached(base.model, modules, LORA, seed=0) as tuned:
        config = tuned.peft_config["default"]
        assert isinstance(config, LoraConfig)
        config.target_modules = None
        with pytest.raises(TypeError, match="list of target modules"):
            save(tuned, base, tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_takes_an_adapter_on_each_of_its_maps(family: str) -> None:
    model = tiny(family)
    before, alone, found = fingerprint(model), logits(model), find_modules(model)
    parts = {name: type(part) for name, part in model.named_modules()}
    with attached(model, found, LORA, seed=0) as tuned:
        layers = lora_layers(tuned)
        assert set(layers) == {module.map for module in found}
        trainable = {id(parameter) for parameter in tuned.parameters() if parameter.requires_grad}
        assert trainable == {id(each) for layer in layers.values() for each in factors(layer)}
        assert torch.equal(logits(tuned), alone)
        for module in found:
            a, b = factors(layers[module.map])
            whole = sum(part.parameters for part in by_map(found)[module.map])
            assert len(b) * a.shape[1] * (len(a) // LORA.rank) == whole, "A and B are of other sizes than the map"
        move(tuned)
        assert not torch.equal(logits(tuned), alone)
    assert fingerprint(model) == before
    assert torch.equal(logits(model), alone)
    assert {name: type(part) for name, part in model.named_modules()} == parts


@pytest.mark.parametrize("family", FAMILIES)
def test_every_familys_adapter_is_saved_and_loaded(base: BaseModel, family: str, tmp_path: Path) -> None:
    here = tiny_base(family, base)
    before, found = fingerprint(here.model), choose(find_modules(here.model), LORA)
    with attached(here.model, found, LORA, seed=0) as tuned:
        move(tuned)
        wanted = logits(tuned.eval())
        save(tuned, here, tmp_path / "adapter")
    with loaded(here, tmp_path / "adapter") as again:
        assert set(lora_layers(again)) == {module.map for module in found}
        assert torch.equal(logits(again), wanted)
    assert fingerprint(here.model) == before

    # As a user has it: the base from its files, and peft.
    here.model.save_pretrained(tmp_path / "base")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    found_there = logits(PeftModel.from_pretrained(plain, tmp_path / "adapter").eval())
    torch.testing.assert_close(found_there, wanted, atol=1e-6, rtol=0)


def test_targets_are_short_names_only_where_they_mean_the_same() -> None:
    def targets(family: str, wanted: Callable[[Module], bool]) -> tuple[set[str], set[str], set[str]]:
        model = tiny(family)
        chosen = [module for module in find_modules(model) if wanted(module)]
        with attached(model, chosen, LORA, seed=0) as tuned:
            assert set(lora_layers(tuned)) == {module.map for module in chosen}
            config = tuned.peft_config["default"]
            assert isinstance(config, LoraConfig)
            modules, parameters = set(config.target_modules or ()), set(config.target_parameters or ())
            return modules, parameters, {module.map for module in chosen}

    assert targets("llama", lambda module: module.type in ("q", "v"))[0] == {"q_proj", "v_proj"}
    # GPT-2 calls two maps of a layer c_proj, and a layer of its own is no short name.
    short, _, names = targets("gpt2", lambda module: module.type == "down")
    assert short == names
    short, _, names = targets("llama", lambda module: module.layer == 1)
    assert short == names
    assert targets("phi3", lambda module: module.type == "q")[0] == {"qkv_proj"}
    short, parameters, _ = targets("qwen2_moe", lambda module: module.type in ("q", "up", "shared_up"))
    assert short == {"q_proj"}
    assert parameters == {"experts.gate_up_proj", "up_proj.weight"}
    short, parameters, names = targets("mixtral", lambda module: module.type == "down" and module.layer == 0)
    assert short == set()
    assert parameters == names


def test_an_adapter_on_experts_alone_is_saved_and_loaded(base: BaseModel, tmp_path: Path) -> None:
    here = tiny_base("qwen2_moe", base)
    before = fingerprint(here.model)
    chosen = choose(find_modules(here.model), LoraSpec(targets=("down", "shared_up")))
    with attached(here.model, chosen, LORA, seed=0) as tuned:
        move(tuned)
        wanted = logits(tuned.eval())
        save(tuned, here, tmp_path)
    with loaded(here, tmp_path) as again:
        assert set(lora_layers(again)) == {module.map for module in chosen}
        assert torch.equal(logits(again), wanted)
    assert fingerprint(here.model) == before


def test_experts_take_no_dropout_and_say_so() -> None:
    found = find_modules(tiny("qwen2_moe"))
    with pytest.raises(InvalidInput) as caught:
        choose(found, LoraSpec(dropout=0.1))
    assert caught.value.code == "dropout_on_experts"
    assert "down, gate, shared_down, shared_gate, shared_up, up" in caught.value.message
    lora = LoraSpec(dropout=0.1, targets=("q", "k", "v", "o"))
    assert {module.type for module in choose(found, lora)} == {"q", "k", "v", "o"}
    assert choose(find_modules(tiny("phi3")), LoraSpec(dropout=0.1))


def test_routers_are_trained_only_where_they_are_named() -> None:
    found = find_modules(tiny("mixtral"))
    assert {module.type for module in found} - {module.type for module in choose(found, LORA)} == {"router"}
    assert {module.type for module in choose(found, LoraSpec(targets=("router", "q")))} == {"router", "q"}


def test_target_types(modules: tuple[Module, ...]) -> None:
    assert choose(modules, LORA) == modules
    chosen = choose(modules, LoraSpec(targets=("v", "q")))
    assert [module.type for module in chosen] == ["q", "v"] * 6
    with pytest.raises(InvalidInput) as caught:
        choose(modules, LoraSpec(targets=("q", "c_attn")))
    assert caught.value.code == "unknown_module_type"
    assert caught.value.param == "training.lora.targets"
    assert "'c_attn'" in caught.value.message
    assert "down, gate, k, o, q, up, v" in caught.value.message


def test_a_loaded_adapter_has_the_type_of_the_base_weights(
    base: BaseModel, modules: tuple[Module, ...], tmp_path: Path
) -> None:
    with attached(base.model, modules, LoraSpec(rank=2), seed=0) as tuned:
        save(tuned, base, tmp_path)
    half = load(TESTBED, torch.device("cpu"), precision="bfloat16")
    for model, dtype in ((base, torch.float32), (half, torch.bfloat16)):
        with loaded(model, tmp_path) as tuned:
            types = {each.dtype for layer in lora_layers(tuned).values() for each in factors(layer)}
            assert types == {dtype}
            logits(tuned)
    with attached(half.model, find_modules(half.model), LoraSpec(rank=2), seed=0) as tuned:
        assert {each.dtype for layer in lora_layers(tuned).values() for each in factors(layer)} == {torch.float32}
