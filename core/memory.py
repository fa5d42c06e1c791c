"""How much memory training and answering need, computed from a model's shape without torch.

The parts that are tensors are counted: docs/models.md compares the sums with measured peaks. Not here: reading a shape
(core.modelfiles.shape), the memory that a worker has (core.pipeline.modelcheck).
"""

from collections.abc import Collection, Sequence
from typing import Literal

from core.schemas.memory import DeviceKind, Memory, ModelShape, WeightFormat
from core.schemas.training import Method

_BYTES = {"float32": 4, "bfloat16": 2, "nf4": 2}
"""Bytes of one number in the forward pass. Weights of 4 bits are computed with in bfloat16."""
_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of one weight in NF4 with double quantisation (Dettmers et al. 2023): 4 bits, an 8-bit constant per 64 weights
and a float32 constant per 256 of those."""
_TRAINED_BYTES = 4
"""Trained weights, their gradients and the optimizer are float32."""
_LOSS_COPIES = 3
"""Tensors of the size of the logits at the peak: log-probabilities, their gradient and the gradient of the logits."""
_USABLE_SHARE = 0.9
_ROUTER = "router"
_TYPES = frozenset({"q", "k", "v", "o", "gate", "up", "down", _ROUTER})
"""Types of maps that are not fused."""
_MAX_MAPS = 16
"""Maps of a layer that process one token; with experts, a layer has more, of which a token uses few."""
_CPU_PROCESS = 480_000_000
"""Resident bytes of a process that has imported torch, transformers and peft, measured on Linux."""
_CPU_SLACK = 0.6
"""Bytes that malloc of glibc holds without using them, as a share of activations and logits."""


def estimate_memory(
    shape: ModelShape,
    *,
    method: Method,
    lora_rank: int,
    targets: Literal["all"] | Sequence[str],
    rows_per_pass: int,
    length: int,
    weights: WeightFormat,
    device: DeviceKind,
) -> Memory:
    """Estimate the largest memory use of a training run.

    Args:
        shape: The model's shape.
        method: What is trained. `qlora` is `lora` on `weights` in `nf4`.
        lora_rank: Rank of the adapter.
        targets: Module types that are trained; `all` excludes routers of experts. If the shape has a target only as a
            part of a fused map, the whole map counts, as it does in training.
        rows_per_pass: Rows of one forward pass: `micro_batch_size`, or `batch_size` if that is not given.
        length: Tokens of the longest row of the pass. Every row counts as this long.
        weights: Number format of the base weights and of the forward pass.
        device: Where the model is trained.
    """
    trained = trained_parameters(shape, method=method, lora_rank=lora_rank, targets=targets)
    full = method == "full"
    tokens = rows_per_pass * length
    activations = (
        tokens * shape.layers * _per_token(shape, length, rank=0 if full else lora_rank, width=_BYTES[weights])
    )
    logits = tokens * shape.vocabulary * _LOSS_COPIES * 4
    stored = weight_bytes(shape, weights)
    if full:  # the trained weights are float32, and a copy of the originals is kept in host memory
        stored += trained * (_TRAINED_BYTES - _BYTES[weights] + (_BYTES[weights] if device == "cpu" else 0))
    parts = {
        "weights": stored,
        "adapter": 0 if full else trained * _TRAINED_BYTES,
        "gradients": trained * _TRAINED_BYTES,
        "optimizer": 2 * trained * _TRAINED_BYTES,
        "activations": activations,
        "logits": logits,
        "overhead": int(_CPU_PROCESS + _CPU_SLACK * (activations + logits)) if device == "cpu" else 0,
    }
    return Memory(**parts, total=sum(parts.values()))


def fits(memory: Memory, available_bytes: int) -> bool:
    """Whether a training fits into a device's memory: a tenth is left for errors of the estimate."""
    return memory.total <= _USABLE_SHARE * available_bytes


def trained_parameters(
    shape: ModelShape, *, method: Method, lora_rank: int, targets: Literal["all"] | Sequence[str]
) -> int:
    """Number of parameters that a run trains: those of the adapter, or of the modules themselves."""
    known = {each.type for each in shape.maps}
    chosen = [
        each
        for each in shape.maps
        if (each.type != _ROUTER if targets == "all" else _has_target(each.type, targets, known))
    ]
    if method == "full":
        return sum(each.parameters for each in chosen)
    return sum(each.count * lora_rank * (each.inputs + each.outputs) for each in chosen)


def weight_bytes(shape: ModelShape, weights: WeightFormat) -> int:
    """Bytes of the loaded weights. With `nf4`, only the maps of the decoder layers are packed."""
    if weights != "nf4":
        return shape.parameters * _BYTES[weights]
    packed = sum(each.count * each.outputs * each.inputs for each in shape.maps if each.type != _ROUTER)
    return int(packed * _NF4_BYTES) + (shape.parameters - packed) * _BYTES[weights]


def cache_bytes(shape: ModelShape, *, rows: int, length: int, weights: WeightFormat) -> int:
    """Bytes of the keys and values of `rows` answers of `length` tokens each, prompt included."""
    return 2 * shape.layers * shape.kv_heads * shape.head_size * _BYTES[weights] * rows * length


def _per_token(shape: ModelShape, length: int, *, rank: int, width: int) -> int:
    """Bytes that one layer stores per token for the backward pass, under scaled dot product attention.

    Both norms store their input, in float32, and their output. Attention stores queries, keys and values, with the keys
    and values of every query head, its output, one number per head, and a row of the mask, which torch converts to
    numbers in each layer. A gated MLP stores four tensors of its width, an MLP without a gate two.
    """
    gated = any("gate" in each.type for each in shape.maps)
    attention = shape.heads * shape.head_size
    numbers = 2 * shape.hidden + 4 * attention + (4 if gated else 2) * shape.intermediate + length
    per_layer = sum(each.count for each in shape.maps if each.type != _ROUTER) / shape.layers
    adapter = int(min(per_layer, _MAX_MAPS) * rank)
    return (numbers + adapter) * width + 2 * shape.hidden * 4 + shape.heads * 4


def _has_target(kind: str, targets: Sequence[str], known: Collection[str]) -> bool:
    """Whether the maps of a type are trained. A target that is no type of its own is a part of some fused map."""
    fused = kind not in _TYPES and any(target not in known for target in targets)
    return kind in targets or fused
