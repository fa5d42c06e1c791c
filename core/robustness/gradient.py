"""Attributes a probe's drift to all modules at once: integrated gradients from the base model to the probe.

The update of every module is scaled by t in 0..1. The share of a module is the derivative of a figure by the module's
own t, integrated over the common t (Sundararajan et al. 2017; for sets, the Aumann-Shapley value). Shares add up to the
joint effect, so modules that can replace each other divide it. Each point costs a forward pass and three backward
passes, and all points together give the whole map: only the B matrices require gradients. A batch belongs to one half
of the prompts or rows, so the same passes give the shares from each half.
Not here: measuring by perturbing modules (core.robustness.probe_activations).
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from peft.helpers import rescale_adapter_scale
from torch import Tensor, nn

from core.lm.adapter import base_model, factors, keep_requires_grad, lora_layers
from core.lm.modules import Module, by_map, find_modules
from core.robustness.probe_activations import Effect, ProbeActivations
from core.schemas.analysis import Proxy

Halves = tuple[Effect, Effect]
"""An effect in two parts that add up to it: from the first and from the second half of the prompts and rows."""


def attribute(
    activations: ProbeActivations,
    tuned: PeftModel,
    modules: Sequence[Module],
    *,
    points: int,
    on_point: Callable[[], None],
    only: Proxy | None = None,
) -> dict[str, Halves]:
    """Each module's share of the effect of the whole update, by module name, from each half of the prompts and rows.

    `tuned` is the base model with the trained probe, in eval mode, which has an update of each module. `activations`
    are those of `ProbeActivations.share`, whose batches have halves. `points` is the number of points of the
    Gauss-Legendre quadrature on 0..1, and `on_point` is called before each of them. With `only`, just this drift is
    measured, in a third of the time; the other figures are 0.
    """
    parts = by_map(find_modules(base_model(tuned)))
    updates = [(factors(layer)[1], parts[name]) for name, layer in lora_layers(tuned).items()]
    shares = {module.name: np.zeros((2, 3)) for module in modules}
    nodes, weights = np.polynomial.legendre.leggauss(points)
    with keep_requires_grad(tuned.parameters()), torch.enable_grad():
        tuned.requires_grad_(False)
        for b, _ in updates:
            b.requires_grad_(True)
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            on_point()
            with rescale_adapter_scale(tuned, float(node)):
                gradients = _gradients(activations, tuned, [b for b, _ in updates], only)
            for (b, members), found in zip(updates, gradients, strict=True):
                products = (found * b.detach()).sum(-1) / float(node)
                for module in members:
                    if module.name in shares:
                        rows = module.indexes(b.device)
                        own = products if rows is None else products[..., rows]
                        shares[module.name] += weight * own.sum(-1).cpu().numpy()
    return {name: (_effect(first), _effect(second)) for name, (first, second) in shares.items()}


def _effect(share: NDArray[np.float64]) -> Effect:
    feature, refusal, task = (float(each) for each in share)
    return Effect(feature, refusal, -task)


def _gradients(
    activations: ProbeActivations, tuned: PeftModel, wanted: list[nn.Parameter], only: Proxy | None
) -> list[Tensor]:
    """For each parameter of `wanted`, the gradients of feature drift, refusal loss and task loss in each half of the
    prompts and rows: `2 3 *parameter`. The two halves add up to the gradient of the mean over all.
    """
    direction = activations.direction
    sums = [torch.zeros((2, 3, *b.shape), dtype=torch.float32, device=b.device) for b in wanted]
    prompts = sum(len(batch.input_ids) for batch in activations.harmful)
    answered, rows = (
        sum(int((batch.per_row > 0).sum()) for batch in of) for of in (activations.harmful, activations.task)
    )

    def add(half: int, figure: int, value: Tensor, *, again: bool = False) -> None:
        found = torch.autograd.grad(value, wanted, retain_graph=again, allow_unused=True)
        for whole, gradient in zip(sums, found, strict=True):
            if gradient is not None:
                whole[half, figure].add_(gradient.float())

    for batch in activations.harmful:
        feature, losses = activations.run_batch(tuned, batch)
        if feature is not None and only != "refusal_drift":
            perturbed = (feature.float() @ direction.normal.float().to(feature.device)).sum()
            add(batch.half, 0, perturbed / (direction.benign - direction.harmful) / prompts, again=only is None)
        if only != "feature_drift":
            add(batch.half, 1, losses.sum() / max(1, answered))
    for batch in () if only else activations.task:
        add(batch.half, 2, activations.run_batch(tuned, batch)[1].sum() / max(1, rows))
    return sums
