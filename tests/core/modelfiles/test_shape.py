"""Tests of core.modelfiles.shape: sizes by the files, compared with the loaded models."""

from pathlib import Path

import pytest
from transformers import PreTrainedModel

from core.lm.adapter import attached, choose
from core.lm.modules import find_modules, own_parameters
from core.memory import trained_parameters
from core.modelfiles.reading import Problem
from core.modelfiles.shape import read_shape
from core.schemas.memory import MapShape, ModelShape
from core.schemas.training import LoraSpec
from testbed import MODEL_DIR
from tests.core.helpers import FAMILIES, tiny
from tests.core.modelfiles.folders import edit, model_folder


def shape_of(model: PreTrainedModel, folder: Path) -> ModelShape:
    """The shape of a saved model."""
    model.save_pretrained(folder)
    found = read_shape(folder)
    assert isinstance(found, ModelShape)
    return found


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_shape_counts_what_is_loaded_and_trained(family: str, tmp_path: Path) -> None:
    model = tiny(family)
    shape = shape_of(model, tmp_path)
    lora = LoraSpec(rank=4)
    modules = choose(find_modules(model), lora)
    own = {id(each): each.numel() for module in modules for each, _ in own_parameters(model, module)}
    with attached(model, modules, lora, seed=0) as tuned:
        adapter = sum(each.numel() for each in tuned.parameters() if each.requires_grad)

    assert (shape.layers, shape.hidden, shape.heads, shape.vocabulary) == (2, 16, 4, 1536)
    assert shape.parameters == model.num_parameters()
    assert trained_parameters(shape, method="full", lora_rank=4, targets="all") == sum(own.values())
    assert trained_parameters(shape, method="lora", lora_rank=4, targets="all") == adapter


def test_the_testbed() -> None:
    shape = read_shape(MODEL_DIR)

    assert isinstance(shape, ModelShape)
    assert shape.parameters == 1_672_832
    assert {each.type for each in shape.maps} == {"q", "k", "v", "o", "gate", "up", "down"}
    assert MapShape(type="q", outputs=shape.hidden, inputs=shape.hidden, count=shape.layers) in shape.maps


def test_a_configuration_without_sizes_is_a_problem(tmp_path: Path) -> None:
    found = read_shape(model_folder(tmp_path / "model"))

    assert isinstance(found, Problem)
    assert found.code == "model_unreadable"


def test_weights_that_are_cut_off_are_a_problem(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    edit("config.json", num_hidden_layers=1, num_attention_heads=1)(folder)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1])

    found = read_shape(folder)

    assert isinstance(found, Problem)
    assert found.code == "weights_incomplete"
