"""Attributes a probe's drift to all modules at once, by gradients along the way from the base to the probe.

The update of every module is scaled by t in 0..1; the derivative of a reading by one module's own t, integrated over
the common t, is that module's share (integrated gradients, Sundararajan et al. 2017; for sets, the Aumann-Shapley
value). Shares add up to the joint reading, so modules that stand in for each other divide what they do. A point costs a
forward pass and three backward ones, and all points together give the whole map: only the updates' B ask for gradients.
Not here: readings by moving modules (core.robustness.readings).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn

from core.lm.adapter import base_model, factors, lora_layers
from core.lm.modules import Module, by_map, find_modules
from core.robustness.readings import Effect, Readings


def attribute(
    readings: Readings, tuned: PeftModel, modules: Sequence[Module], *, points: int, count: Callable[[], None]
) -> dict[str, Effect]:
    """Each module's share of what the whole update does, by name.

    Args:
        readings: what is measured.
        tuned: the base with the trained probe on it, in eval mode.
        modules: those to be told apart; each has an update in `tuned`.
        points: points of the Gauss-Legendre quadrature on 0..1.
        count: called before each point.
    """
    layers = lora_layers(tuned)
    parts = by_map(find_modules(base_model(tuned)))
    updates = [(b, parts[name]) for name, layer in layers.items() for _, b in factors(layer)]
    shares = {module.name: np.zeros(3) for module in modules}
    places, weights = np.polynomial.legendre.leggauss(points)
    with _asking(tuned, [b for b, _ in updates]), torch.enable_grad():
        for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
            count()
            with _scaled(tuned, float(place)):
                gradients = _gradients(readings, tuned, [b for b, _ in updates])
            for number, (b, members) in enumerate(updates):
                products = [(gradient[number] * b.detach()).sum(1) / float(place) for gradient in gradients]
                for module in members:
                    if module.name in shares:
                        rows = module.indexes(b.device)
                        own = [float((each if rows is None else each[rows]).sum()) for each in products]
                        shares[module.name] += weight * np.array(own)
    return {name: Effect(float(share[0]), float(share[1]), -float(share[2])) for name, share in shares.items()}


def _gradients(readings: Readings, tuned: PeftModel, wanted: list[nn.Parameter]) -> list[list[Tensor]]:
    """Gradients of feature drift, refusal loss and task loss, each one tensor for each of `wanted`."""
    direction = readings.direction
    sums = [[torch.zeros_like(b, dtype=torch.float32) for b in wanted] for _ in range(3)]
    prompts = sum(len(chunk.input_ids) for chunk in readings.harmful)
    answered, rows = (sum(int((chunk.per_row > 0).sum()) for chunk in of) for of in (readings.harmful, readings.task))

    def add(into: list[Tensor], value: Tensor, *, again: bool) -> None:
        found = torch.autograd.grad(value, wanted, retain_graph=again, allow_unused=True)
        for whole, gradient in zip(into, found, strict=True):
            if gradient is not None:
                whole.add_(gradient.float())

    for chunk in readings.harmful:
        feature, losses = readings.pass_over(tuned, chunk)
        if feature is not None:
            moved = (feature.float() @ direction.normal.float().to(feature.device)).sum()
            add(sums[0], moved / (direction.benign - direction.harmful) / prompts, again=True)
        add(sums[1], losses.sum() / answered, again=False)
    for chunk in readings.task:
        add(sums[2], readings.pass_over(tuned, chunk)[1].sum() / rows, again=False)
    return sums


@contextmanager
def _asking(tuned: PeftModel, wanted: list[nn.Parameter]) -> Iterator[None]:
    """Only these parameters ask for a gradient."""
    before = [(parameter, parameter.requires_grad) for parameter in tuned.parameters()]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(False)
        for parameter in wanted:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter, asked in before:
            parameter.requires_grad_(asked)


@contextmanager
def _scaled(tuned: PeftModel, place: float) -> Iterator[None]:
    """Every update scaled by the same factor."""
    layers = list(lora_layers(tuned).values())
    before = [dict(layer.scaling) for layer in layers]
    try:
        for layer, scaling in zip(layers, before, strict=True):
            for adapter, scale in scaling.items():
                layer.scaling[adapter] = scale * place
        yield
    finally:
        for layer, scaling in zip(layers, before, strict=True):
            layer.scaling.update(scaling)
