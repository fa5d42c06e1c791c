"""The number format that a model is computed in: float32, or bfloat16 where it is fast enough to be worth its rounding.

A GPU computes in bfloat16. A CPU does if it has instructions for it and the model is large, and if a short self-test on
matrices of the model's shapes shows that it is faster. Everything follows the type of the base weights: training,
answers and all measurements. Trained weights and the optimizer are float32 in both.
Not here: the same choice in every attempt of a job (core.pipeline.precision), 4-bit weights (core.lm.load).
"""

import time
from collections import Counter
from functools import cache
from math import prod
from pathlib import Path
from statistics import median

import torch
from torch import nn
from torch.nn.functional import linear

from core.modelfiles import read_weights
from core.modelfiles.reading import Problem
from core.schemas.results import PrecisionUsed
from core.schemas.training import Precision

MIN_SPEEDUP = 1.3
"""bfloat16 is chosen if it is at least this many times as fast as float32."""
_MIN_PARAMETERS = 50_000_000
"""Smaller models are always computed in float32 on a CPU: they are fast, and their figures are then reproducible."""
_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")
_TOKENS = 64
"""Rows of the input matrix, between a step of an answer (up to 128) and a prompt."""
_SHAPES, _ROUNDS = 3, 5
_MAX_ELEMENTS = 1 << 21
"""Larger matrices are cut, so that the test takes well under a second for every model."""

Shapes = tuple[tuple[int, int], ...]
"""(outputs, inputs) of matrices."""


def choose(precision: Precision, device: torch.device, folder: Path) -> PrecisionUsed:
    """The precision of the model in `folder` on this device. An explicit precision is always used."""
    if precision != "auto":
        return PrecisionUsed(weights=precision)
    if device.type == "cuda":
        return PrecisionUsed(weights="bfloat16")
    shapes = main_shapes(folder) if has_instructions() else ()
    if not shapes:
        return PrecisionUsed(weights="float32")
    speedup = measure_speedup(shapes)
    return PrecisionUsed(weights="bfloat16" if speedup >= MIN_SPEEDUP else "float32", speedup=speedup)


def uses_bfloat16(model: nn.Module) -> bool:
    """Whether a model is computed in bfloat16. Trained weights are float32 in every model, so they do not count."""
    return any(parameter.dtype == torch.bfloat16 for parameter in model.parameters())


def has_instructions() -> bool:
    """Whether this CPU has instructions for bfloat16: AVX512-BF16 or AMX."""
    known = torch.cpu.get_capabilities()
    return any(known.get(name) for name in _INSTRUCTIONS)


def main_shapes(folder: Path) -> Shapes:
    """The shapes of the matrices that most of a model's parameters are in, cut to a size that is tested quickly.

    Empty for a small model. Of stacked matrices (experts), the shape of one.
    """
    tensors = read_weights(folder)
    if isinstance(tensors, Problem) or sum(prod(each.shape) for each in tensors.values()) < _MIN_PARAMETERS:
        return ()
    parameters: Counter[tuple[int, int]] = Counter()
    for each in tensors.values():
        if len(each.shape) > 1:
            inputs = min(each.shape[-1], _MAX_ELEMENTS)
            parameters[min(each.shape[-2], _MAX_ELEMENTS // inputs), inputs] += prod(each.shape)
    return tuple(shape for shape, _ in parameters.most_common(_SHAPES))


@cache
def measure_speedup(shapes: Shapes) -> float:
    """How many times as fast this CPU multiplies matrices of these shapes in bfloat16 as in float32.

    The two take turns, and the median of the ratios counts, so that other load on the machine affects both alike.
    """
    generator = torch.Generator().manual_seed(0)
    pairs = [
        (torch.randn(_TOKENS, inputs, generator=generator), torch.randn(outputs, inputs, generator=generator))
        for outputs, inputs in shapes
    ]
    halves = [(given.bfloat16(), weight.bfloat16()) for given, weight in pairs]

    @torch.inference_mode()
    def seconds(matrices: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
        started = time.perf_counter()
        for given, weight in matrices:
            linear(given, weight)
        return time.perf_counter() - started

    seconds(pairs), seconds(halves)  # the first call prepares kernels
    return round(median(seconds(pairs) / seconds(halves) for _ in range(_ROUNDS)), 2)
