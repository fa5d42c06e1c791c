"""Attributes a probe's drift to all modules at once: integrated gradients from the base model to the probe.

The update of every module is scaled by t in 0..1. The share of a module is the derivative of a figure by the module's
own t, integrated over the common t (Sundararajan et al. 2017; for sets, the Aumann-Shapley value). Shares add up to the
joint effect, so modules that can replace each other divide it. Each point costs a forward pass and three backward
passes, and all points together give the whole map: only the B matrices require gradients.
Not here: measuring by perturbing modules (core.robustness.probe_activations).
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from peft import PeftModel
from peft.helpers import rescale_adapter_scale
from torch import Tensor, nn

from core.lm.adapter import base_model, factors, keep_requires_grad, lora_layers
from core.lm.modules import Module, by_map, find_modules
from core.robustness.probe_activations import Effect, ProbeActivations


def attribute(
    activations: ProbeActivations,
    tuned: PeftModel,
    modules: Sequence[Module],
    *,
    points: int,
    on_point: Callable[[], None],
) -> dict[str, Effect]:
    """Each module's share of the effect of the whole update, by module name.

    `tuned` is the base model with the trained probe, in eval mode, which has an update of each module. `points` is the
    number of points of the Gauss-Legendre quadrature on 0..1, and `on_point` is called before each of them.
    """
    parts = by_map(find_modules(base_model(tuned)))
    updates = [(factors(layer)[1], parts[name]) for name, layer in lora_layers(tuned).items()]
    shares = {module.name: np.zeros(3) for module in modules}
    nodes, weights = np.polynomial.legendre.leggauss(points)
    with keep_requires_grad(tuned.parameters()), torch.enable_grad():
        tuned.requires_grad_(False)
        for b, _ in updates:
            b.requires_grad_(True)
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            on_point()
            with rescale_adapter_scale(tuned, float(node)):
                gradients = _gradients(activations, tuned, [b for b, _ in updates])
            for number, (b, members) in enumerate(updates):
                products = [(gradient[number] * b.detach()).sum(1) / float(node) for gradient in gradients]
                for module in members:
                    if module.name in shares:
                        rows = module.indexes(b.device)
                        own = [float((each if rows is None else each[rows]).sum()) for each in products]
                        shares[module.name] += weight * np.array(own)
    return {name: Effect(float(share[0]), float(share[1]), -float(share[2])) for name, share in shares.items()}


def _gradients(activations: ProbeActivations, tuned: PeftModel, wanted: list[nn.Parameter]) -> list[list[Tensor]]:
    """Gradients of feature drift, refusal loss and task loss: for each, one tensor per parameter of `wanted`."""
    direction = activations.direction
    sums = [[torch.zeros_like(b, dtype=torch.float32) for b in wanted] for _ in range(3)]
    prompts = sum(len(batch.input_ids) for batch in activations.harmful)
    answered, rows = (
        sum(int((batch.per_row > 0).sum()) for batch in of) for of in (activations.harmful, activations.task)
    )

    def add(into: list[Tensor], value: Tensor, *, again: bool) -> None:
        found = torch.autograd.grad(value, wanted, retain_graph=again, allow_unused=True)
        for whole, gradient in zip(into, found, strict=True):
            if gradient is not None:
                whole.add_(gradient.float())

    for batch in activations.harmful:
        feature, losses = activations.run_batch(tuned, batch)
        if feature is not None:
            perturbed = (feature.float() @ direction.normal.float().to(feature.device)).sum()
            add(sums[0], perturbed / (direction.benign - direction.harmful) / prompts, again=True)
        add(sums[1], losses.sum() / answered, again=False)
    for batch in activations.task:
        add(sums[2], activations.run_batch(tuned, batch)[1].sum() / rows, again=False)
    return sums
