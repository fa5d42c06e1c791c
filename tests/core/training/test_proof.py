"""Trained weights are proven to be others than the base model's, and the proof leaves the base weights as they are."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from core.catalog import TESTBED
from core.data.encoded import Encoded
from core.errors import TrainingFailed
from core.lm import adapter
from core.lm.load import BaseModel, load
from core.lm.modules import Module, find_modules
from core.schemas.evaluation import WeightsProof
from core.schemas.training import LoraSpec
from core.training.proof import BaseProbabilities, check_proof, merge_warning
from tests.core.helpers import encoded

RUN = "uniform"


@pytest.fixture
def rows(base: BaseModel) -> tuple[Encoded, ...]:
    return encoded(base, 12)


@pytest.fixture
def weights(base: BaseModel) -> Iterator[dict[str, Tensor]]:
    """The base weights, which must be the same to the bit after the test."""
    before = {name: weight.clone() for name, weight in base.model.state_dict().items()}
    yield before
    after = base.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def saved(base: BaseModel, modules: tuple[Module, ...], folder: Path, size: float) -> Path:
    """An adapter whose B factors are all `size`; 0 changes nothing."""
    with adapter.attached(base.model, modules, LoraSpec(rank=2), seed=0) as tuned:
        for layer in adapter.lora_layers(tuned).values():
            adapter.factors(layer)[1].data.fill_(size)
        folder.mkdir()
        adapter.save(tuned, base, folder)
    return folder


def prove(base: BaseModel, rows: tuple[Encoded, ...], folder: Path) -> WeightsProof:
    probabilities = BaseProbabilities(base, rows)
    with adapter.loaded(base, folder) as tuned:
        return probabilities.compare(tuned, RUN)


def test_an_adapter_that_changes_the_model(
    base: BaseModel, modules: tuple[Module, ...], rows: tuple[Encoded, ...], weights: object, tmp_path: Path
) -> None:
    proof = prove(base, rows, saved(base, modules, tmp_path / "a", 0.05))
    assert proof.run == RUN
    assert proof.tokens > 8
    assert 0 <= proof.noise < 1e-4
    assert 1e-2 < proof.change <= 1
    assert proof.merged is not None
    assert proof.merged < 1e-3 * proof.change
    check_proof(proof)
    assert merge_warning(proof, "float32") is None


def test_an_adapter_that_does_nothing_is_found_out(
    base: BaseModel, modules: tuple[Module, ...], rows: tuple[Encoded, ...], weights: object, tmp_path: Path
) -> None:
    proof = prove(base, rows, saved(base, modules, tmp_path / "a", 0.0))
    assert proof.change <= proof.noise
    with pytest.raises(TrainingFailed) as caught:
        check_proof(proof)
    assert caught.value.code == "training_without_effect"
    assert RUN in caught.value.message


def test_a_small_update_that_merging_loses_in_bfloat16_is_warned_of(
    base: BaseModel, modules: tuple[Module, ...], rows: tuple[Encoded, ...], weights: object, tmp_path: Path
) -> None:
    folder = saved(base, modules, tmp_path / "a", 1e-4)
    exact = prove(base, rows, folder)
    assert merge_warning(exact, "float32") is None
    half = load(TESTBED, torch.device("cpu"), precision="bfloat16")
    warning = merge_warning(prove(half, rows, folder), half.weights)
    assert warning is not None
    assert warning.code == "merged_adapter_differs"
    assert "bfloat16" in warning.message


def test_an_adapter_beside_bfloat16_weights(rows: tuple[Encoded, ...], tmp_path: Path) -> None:
    base = load(TESTBED, torch.device("cpu"), precision="bfloat16")
    modules = find_modules(base.model)
    proof = prove(base, rows, saved(base, modules, tmp_path / "a", 0.05))
    assert proof.change > 10 * proof.noise
    assert proof.merged is not None
    check_proof(proof)
    assert merge_warning(proof, base.weights) is None
    idle = prove(base, rows, saved(base, modules, tmp_path / "idle", 0.0))
    with pytest.raises(TrainingFailed, match="predict what the base model predicts"):
        check_proof(idle)


def test_the_update_is_merged_while_a_map_computes_only(
    base: BaseModel, modules: tuple[Module, ...], rows: tuple[Encoded, ...], tmp_path: Path
) -> None:
    probabilities = BaseProbabilities(base, rows)
    with adapter.loaded(base, saved(base, modules, tmp_path / "a", 0.05)) as tuned:
        probabilities.compare(tuned, RUN)
        assert isinstance(tuned, PeftModel)
        for layer in adapter.lora_layers(tuned).values():
            assert not layer.merged


def test_a_model_that_can_be_trained_on_after_the_proof(
    base: BaseModel, rows: tuple[Encoded, ...], tmp_path: Path
) -> None:
    modules = find_modules(base.model)[:2]
    prove(base, rows, saved(base, modules, tmp_path / "a", 0.05))
    with adapter.attached(base.model, modules, LoraSpec(rank=2), seed=0) as tuned:
        ids = torch.from_numpy(rows[0].input_ids).long().unsqueeze(0)
        tuned(input_ids=ids, labels=ids).loss.backward()
        first = next(iter(adapter.lora_layers(tuned).values()))
        assert adapter.factors(first)[1].grad is not None
