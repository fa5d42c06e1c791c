"""Which precision a model is computed in. How fast anything is, is not a test: the self-test is replaced."""

from pathlib import Path
from typing import Literal

import pytest
import torch
from transformers import LlamaConfig

from core.catalog import TESTBED
from core.lm import precision
from core.lm.load import BaseModel, load
from core.lm.precision import MIN_SPEEDUP, choose, main_shapes, measure_speedup, uses_bfloat16
from core.schemas.results import PrecisionUsed
from tests.core.helpers import logits
from tests.core.lm.models import CPU, entry

CUDA = torch.device("cuda")


@pytest.fixture
def large(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that counts as large, on a CPU with instructions for bfloat16."""
    monkeypatch.setattr(precision, "_MIN_PARAMETERS", 1)
    monkeypatch.setattr(precision, "has_instructions", lambda: True)
    return folder


def measured(monkeypatch: pytest.MonkeyPatch, speedup: float) -> None:
    def measure(_shapes: object) -> float:
        return speedup

    monkeypatch.setattr(precision, "measure_speedup", measure)


def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_shapes: object) -> float:
        raise AssertionError("nothing needs to be measured")

    monkeypatch.setattr(precision, "measure_speedup", fail)


@pytest.mark.parametrize("wish", ["float32", "bfloat16"])
@pytest.mark.parametrize("device", [CPU, CUDA])
def test_an_explicit_precision_is_used_everywhere(
    monkeypatch: pytest.MonkeyPatch, large: Path, wish: Literal["float32", "bfloat16"], device: torch.device
) -> None:
    unmeasured(monkeypatch)
    assert choose(wish, device, large) == PrecisionUsed(weights=wish)


def test_a_gpu_computes_in_bfloat16(monkeypatch: pytest.MonkeyPatch, large: Path) -> None:
    unmeasured(monkeypatch)
    assert choose("auto", CUDA, large) == PrecisionUsed(weights="bfloat16")


@pytest.mark.parametrize(
    ("speedup", "weights"),
    [(0.9, "float32"), (MIN_SPEEDUP - 0.01, "float32"), (MIN_SPEEDUP, "bfloat16"), (3.0, "bfloat16")],
)
def test_the_self_test_decides_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, large: Path, speedup: float, weights: str
) -> None:
    measured(monkeypatch, speedup)
    found = choose("auto", CPU, large)
    assert (found.weights, found.speedup) == (weights, speedup)


def test_a_cpu_without_instructions_computes_in_float32(monkeypatch: pytest.MonkeyPatch, large: Path) -> None:
    unmeasured(monkeypatch)
    monkeypatch.setattr(precision, "has_instructions", lambda: False)
    assert choose("auto", CPU, large) == PrecisionUsed(weights="float32")


def test_small_models_are_never_measured(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    unmeasured(monkeypatch)
    monkeypatch.setattr(precision, "has_instructions", lambda: True)
    assert main_shapes(folder) == ()
    assert choose("auto", CPU, folder) == PrecisionUsed(weights="float32")
    found = load(TESTBED, CPU)
    assert (found.weights, found.speedup, found.warnings) == ("float32", None, ())


@pytest.mark.parametrize(
    ("capabilities", "has"), [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({}, False)]
)
def test_instructions(monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], has: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": False} | capabilities)
    assert precision.has_instructions() is has


def test_the_shapes_are_those_of_most_parameters(large: Path) -> None:
    config = LlamaConfig.from_pretrained(large)
    shapes = main_shapes(large)
    assert len(shapes) == 3
    assert {(config.intermediate_size, config.hidden_size), (config.vocab_size, config.hidden_size)} < {*shapes}


def test_large_matrices_are_cut(monkeypatch: pytest.MonkeyPatch, large: Path) -> None:
    monkeypatch.setattr(precision, "_MAX_ELEMENTS", 128)
    assert all(outputs * inputs <= 128 and outputs >= 1 for outputs, inputs in main_shapes(large))


def test_the_self_test_measures_a_ratio() -> None:
    assert measure_speedup(((8, 16), (16, 8))) > 0


def test_a_model_in_bfloat16_on_a_cpu(monkeypatch: pytest.MonkeyPatch, large: Path) -> None:
    exact = load(entry(large), CPU, precision="float32")
    measured(monkeypatch, 2.5)
    found = load(entry(large), CPU)
    assert (exact.weights, exact.speedup, exact.warnings) == ("float32", None, ())
    assert (found.weights, found.speedup) == ("bfloat16", 2.5)
    assert {each.dtype for each in found.model.parameters()} == {torch.bfloat16}
    assert uses_bfloat16(found.model)
    assert not uses_bfloat16(exact.model)
    (warning,) = found.warnings
    assert warning.code == "bfloat16_on_cpu"
    assert "2.5 times as fast" in warning.message
    assert torch.allclose(logits(found.model).float(), logits(exact.model), atol=0.05)


def test_an_ordered_bfloat16_is_not_warned_of(folder: Path) -> None:
    found = load(entry(folder), CPU, precision="bfloat16")
    assert (found.weights, found.speedup, found.warnings) == ("bfloat16", None, ())


def test_the_testbed_loads_in_bfloat16(base: BaseModel) -> None:
    found = load(TESTBED, CPU, precision="bfloat16")
    assert (found.weights, base.weights) == ("bfloat16", "float32")
