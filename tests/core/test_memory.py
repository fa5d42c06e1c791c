"""Tests of core.memory: an estimate compared with what torch stores, byte by byte."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from core.data.batches import Batch
from core.lm.adapter import attached
from core.lm.modules import find_modules
from core.memory import cache_bytes, estimate_memory, fits, trained_parameters, weight_bytes
from core.modelfiles.shape import read_shape
from core.schemas.memory import DeviceKind, MapShape, Memory, ModelShape
from core.schemas.training import LoraSpec, Method
from core.training.loop import next_token_loss
from tests.core.helpers import tiny

ROWS, LENGTH = 3, 40
SHAPE = ModelShape(
    parameters=1000,
    layers=2,
    hidden=8,
    intermediate=16,
    heads=2,
    kv_heads=1,
    head_size=4,
    vocabulary=50,
    context=64,
    tied=True,
    maps=(
        MapShape(type="q", outputs=8, inputs=8, count=2, bias=True),
        MapShape(type="gate", outputs=16, inputs=8, count=2),
        MapShape(type="router", outputs=4, inputs=8, count=2),
    ),
)


def estimate(
    *, method: Method = "lora", rows_per_pass: int = 1, length: int = 10, device: DeviceKind = "cuda"
) -> Memory:
    """The estimate for SHAPE, in bfloat16."""
    return estimate_memory(
        SHAPE,
        method=method,
        lora_rank=2,
        targets="all",
        rows_per_pass=rows_per_pass,
        length=length,
        weights="bfloat16",
        device=device,
    )


def stored_bytes(family: str, folder: Path) -> tuple[int, ModelShape]:
    """Bytes that the forward pass of a LoRA step stores beside parameters and buffers, and the model's shape."""
    model = tiny(family)
    model.save_pretrained(folder)
    shape = read_shape(folder)
    assert isinstance(shape, ModelShape)
    ids = torch.randint(5, 1000, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, -1] = 0
    stored: dict[int, int] = {}

    def store(tensor: Tensor) -> Tensor:
        stored[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with attached(model, find_modules(model), LoraSpec(rank=4), seed=0) as tuned:
        own = {each.untyped_storage().data_ptr() for each in (*tuned.parameters(), *tuned.buffers())}
        with saved_tensors_hooks(store, lambda tensor: tensor):
            loss = next_token_loss(tuned, Batch(ids, mask, labels=ids))
        loss.backward()
    return sum(size for place, size in stored.items() if place not in own), shape


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "olmo2", "phi3"])
def test_activations_are_what_torch_stores(family: str, tmp_path: Path) -> None:
    measured, shape = stored_bytes(family, tmp_path)
    found = estimate_memory(
        shape,
        method="lora",
        lora_rank=4,
        targets="all",
        rows_per_pass=ROWS,
        length=LENGTH,
        weights="float32",
        device="cpu",
    )

    # One of the three tensors of the size of the logits is stored; the others exist in the backward pass.
    assert found.activations + found.logits / 3 == pytest.approx(measured, rel=0.1)


def test_a_tenth_of_the_memory_stays_free() -> None:
    found = estimate()
    assert fits(found, int(found.total / 0.9) + 10)
    assert not fits(found, int(found.total / 0.9) - 10)


def test_the_parts_of_an_adapter() -> None:
    found = estimate()

    trained = 2 * 2 * (8 + 8) + 2 * 2 * (8 + 16)
    assert (found.adapter, found.gradients, found.optimizer) == (4 * trained, 4 * trained, 8 * trained)
    assert found.weights == 2 * SHAPE.parameters
    assert found.logits == 3 * 10 * 50 * 4
    assert found.overhead == 0
    assert found.total == sum(value for name, value in found.model_dump().items() if name != "total")


def test_full_training_keeps_float32_weights_and_on_a_cpu_the_originals() -> None:
    trained = 2 * (8 * 8 + 8) + 2 * 8 * 16

    assert estimate(method="full").weights == 2 * SHAPE.parameters + 2 * trained
    assert estimate(method="full", device="cpu").weights == 2 * SHAPE.parameters + 4 * trained
    assert estimate(method="full").adapter == 0


def test_activations_grow_with_rows_and_faster_with_length() -> None:
    one, rows, long = estimate(), estimate(rows_per_pass=4), estimate(length=40)

    assert rows.activations == 4 * one.activations
    assert long.activations > 4 * one.activations
    assert long.logits == rows.logits == 4 * one.logits


def test_only_targets_are_trained() -> None:
    assert trained_parameters(SHAPE, method="lora", lora_rank=2, targets=("q",)) == 2 * 2 * (8 + 8)


def test_a_target_within_a_fused_map_counts_the_map() -> None:
    fused = SHAPE.model_copy(
        update={"maps": (MapShape(type="qkv", outputs=16, inputs=8, count=2), *SHAPE.maps[1:])},
    )

    assert trained_parameters(fused, method="lora", lora_rank=1, targets=("q",)) == 2 * (16 + 8)
    assert trained_parameters(fused, method="lora", lora_rank=1, targets=("gate",)) == 2 * (16 + 8)


def test_four_bit_weights_pack_only_the_maps_of_layers() -> None:
    packed = 2 * 8 * 8 + 2 * 16 * 8

    assert weight_bytes(SHAPE, "nf4") == pytest.approx(0.516 * packed + 2 * (1000 - packed), rel=0.01)


def test_the_cache_has_keys_and_values_of_every_layer() -> None:
    assert cache_bytes(SHAPE, rows=3, length=5, weights="float32") == 2 * 2 * 1 * 4 * 4 * 3 * 5
