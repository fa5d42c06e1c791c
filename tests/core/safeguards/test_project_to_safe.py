"""Updates are projected as in SafeLoRA, but weights are found by name and no output-by-output matrix is computed."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from core.errors import InvalidModel
from core.lm.adapter import attached, base_model, factors, lora_layers
from core.lm.modules import Module, find_modules, weight_of
from core.safeguards.project_to_safe import check_pair, cosine_of, project, projected, updates_of
from core.schemas.safeguards import ProjectToSafe
from core.schemas.training import LoraSpec
from tests.core.helpers import FAMILIES, tiny

ALL = ProjectToSafe(threshold=1.0)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def folders(path: Path, family: str, **options: object) -> tuple[PreTrainedModel, Path, Path]:
    """An aligned model, its folder, and the folder of an unaligned model of the same shape."""
    found: list[PreTrainedModel] = []
    for seed, name in enumerate(("aligned", "unaligned")):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **FAMILIES[family] | options))
        assert isinstance(model, PreTrainedModel)
        model.requires_grad_(False).eval().save_pretrained(path / name)
        found.append(model)
    return found[0], path / "aligned", path / "unaligned"


@contextmanager
def adapted(model: PreTrainedModel, untrained: str = "") -> Iterator[PeftModel]:
    """An adapter as after training: B is nonzero, except for the map or module with this name."""
    modules = find_modules(model)
    with attached(model, modules, LoraSpec(rank=2, alpha=4), seed=0) as tuned:
        layers = lora_layers(tuned)
        with torch.no_grad():
            for number, module in enumerate(modules):
                _, whole = factors(layers[module.map])
                rows = range(len(whole)) if module.rows is None else [row for run in module.rows for row in run]
                if untrained not in (module.map, module.name):
                    whole[list(rows)] = drawn(len(rows), 2, seed=number)
        yield tuned


def outputs_of(tuned: PeftModel, modules: tuple[Module, ...]) -> dict[str, Tensor]:
    """Each module's own rows of B, for modules whose rows are not all zero."""
    return {update.module.name: update.outputs.clone() for update in updates_of(tuned, modules)}


@pytest.mark.parametrize("subspace", ["weighted", "span"])
def test_a_projection_equals_that_with_the_full_matrix(subspace: str) -> None:
    outputs, direction = drawn(12, 3), drawn(12, 9, seed=1)
    spec = ProjectToSafe.model_validate({"subspace": subspace, "rank": 2})
    if subspace == "weighted":
        whole = direction @ direction.T / direction.norm()
    else:
        left = torch.linalg.svd(direction).U[:, :2]
        whole = left @ left.T
    torch.testing.assert_close(projected(outputs, direction, spec), whole @ outputs)


def test_a_span_is_found_in_large_matrices_and_never_lengthens_an_update() -> None:
    basis, _ = torch.linalg.qr(drawn(1200, 3))
    direction = basis @ drawn(3, 1100, seed=1) + 1e-5 * drawn(1200, 1100, seed=2)
    state = torch.random.get_rng_state()
    outputs = drawn(1200, 4, seed=3)
    found = projected(outputs, direction, ProjectToSafe(subspace="span", rank=3))
    torch.testing.assert_close(found, basis @ (basis.T @ outputs), rtol=1e-3, atol=1e-3)
    assert found.norm() < outputs.norm()
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(found, projected(outputs, direction, ProjectToSafe(subspace="span", rank=3)))


def test_the_cosine_equals_that_of_the_full_updates() -> None:
    before, after, inputs = drawn(12, 3), drawn(12, 3, seed=1), drawn(3, 7, seed=2)
    whole = torch.nn.functional.cosine_similarity((before @ inputs).flatten(), (after @ inputs).flatten(), dim=0)
    assert cosine_of(before, after, inputs) == pytest.approx(whole.item(), abs=1e-6)
    assert cosine_of(before, 3 * before, inputs) == pytest.approx(1.0)
    assert cosine_of(before, torch.zeros_like(before), inputs) == 0.0


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "qwen2", "phi3"])
def test_every_trained_update_is_projected_with_its_own_weights(tmp_path: Path, family: str) -> None:
    model, aligned, unaligned = folders(tmp_path, family)
    other = AutoModelForCausalLM.from_pretrained(unaligned)
    everything = find_modules(model)
    untrained = everything[0].map
    with adapted(model, untrained) as tuned:
        before = outputs_of(tuned, everything)
        assert set(before) == {module.name for module in everything if module.map != untrained}
        found = project(tuned, everything, aligned, unaligned, ALL)
        assert list(found) == list(before)
        assert all(-1 <= cosine <= 1 for cosine in found.values())
        after = outputs_of(tuned, everything)
        for module in everything:
            if module.map == untrained:
                continue
            direction = weight_of(base_model(tuned), module) - weight_of(other, module)
            direction = direction.T if module.axis else direction
            rows = module.indexes()
            direction = direction if rows is None else direction[rows]
            expected = direction @ direction.T @ before[module.name] / direction.norm()
            torch.testing.assert_close(after[module.name], expected, rtol=1e-4, atol=1e-5)


def test_an_untrained_part_of_a_fused_map_stays_zero(tmp_path: Path) -> None:
    model, aligned, unaligned = folders(tmp_path, "phi3")
    everything = find_modules(model)
    part = next(module for module in everything if module.rows is not None)
    with adapted(model, part.name) as tuned:
        found = set(project(tuned, everything, aligned, unaligned, ALL))
        assert {module.name for module in everything} - found == {part.name}
        assert part.name not in outputs_of(tuned, everything)


def test_only_updates_with_a_cosine_up_to_the_threshold_are_projected(tmp_path: Path) -> None:
    model, aligned, unaligned = folders(tmp_path, "llama")
    everything = find_modules(model)
    with adapted(model) as tuned:
        before = outputs_of(tuned, everything)
        none = project(tuned, everything, aligned, unaligned, ProjectToSafe(threshold=0.0))
        assert all(cosine > 0 for cosine in none.values())
        assert all(torch.equal(value, before[name]) for name, value in outputs_of(tuned, everything).items())
        middle = sorted(none.values())[len(none) // 2]
        some = project(tuned, everything, aligned, unaligned, ProjectToSafe(threshold=middle))
        assert some == none
        after = outputs_of(tuned, everything)
        same = {name for name, value in before.items() if torch.equal(after[name], value)}
        assert same == {name for name, cosine in some.items() if cosine > middle} != set()


def test_tied_weights_and_the_order_of_tensors_do_not_matter(tmp_path: Path) -> None:
    model, aligned, unaligned = folders(tmp_path, "llama", tie_word_embeddings=True)
    everything = find_modules(model)
    with adapted(model) as tuned:
        expected = project(tuned, everything, aligned, unaligned, ALL)
    path = unaligned / "model.safetensors"
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    halves = sorted(tensors, reverse=True)[::2], sorted(tensors, reverse=True)[1::2]
    path.unlink()
    for number, names in enumerate(halves):
        save_file({name: tensors[name] for name in names}, unaligned / f"part-{number}.safetensors")
    save_file({"lm_head.weight": drawn(3, 3)}, unaligned / "a.safetensors")
    with adapted(model) as tuned:
        assert project(tuned, everything, aligned, unaligned, ALL) == expected


def test_a_module_that_alignment_did_not_change_is_skipped(tmp_path: Path) -> None:
    model, aligned, unaligned = folders(tmp_path, "llama")
    everything = find_modules(model)
    still = everything[3]
    tensors = load_file(unaligned / "model.safetensors") | {still.weight: weight_of(model, still).data}
    save_file(tensors, unaligned / "model.safetensors")
    with adapted(model) as tuned:
        before = outputs_of(tuned, everything)
        found = project(tuned, everything, aligned, unaligned, ALL)
        assert still.name not in found
        assert len(found) == len(everything) - 1
        assert torch.equal(before[still.name], outputs_of(tuned, everything)[still.name])


def test_a_different_model_is_rejected_as_unaligned_base(tmp_path: Path) -> None:
    model, aligned, unaligned = folders(tmp_path, "llama")
    check_pair(aligned, unaligned)
    tiny("gpt2").save_pretrained(tmp_path / "other")
    with pytest.raises(InvalidModel, match="model_type is gpt2") as caught:
        check_pair(aligned, tmp_path / "other")
    assert caught.value.code == "unaligned_base_mismatch"
    everything = find_modules(model)
    name = everything[5].name
    tensors = load_file(unaligned / "model.safetensors")
    with adapted(model) as tuned:
        rest = {key: value for key, value in tensors.items() if key != f"{name}.weight"}
        for broken in (rest, rest | {f"{name}.weight": drawn(3, 4)}):
            save_file(broken, unaligned / "model.safetensors")
            with pytest.raises(InvalidModel, match=name) as caught:
                project(tuned, everything, aligned, unaligned, ALL)
            assert caught.value.code == "unaligned_base_mismatch"
        (unaligned / "model.safetensors").write_bytes(b"no tensors")
        with pytest.raises(InvalidModel) as caught:
            project(tuned, everything, aligned, unaligned, ALL)
        assert caught.value.code == "unaligned_base_unreadable"


def test_a_different_configuration_is_rejected_before_weights_are_read(tmp_path: Path) -> None:
    _, aligned, unaligned = folders(tmp_path, "llama")
    config = json.loads((unaligned / "config.json").read_text())
    (unaligned / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(InvalidModel, match="num_hidden_layers is 3"):
        check_pair(aligned, unaligned)
