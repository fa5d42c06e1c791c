"""Perturbs modules: with Gaussian noise, or with the update of a short probe run on the job's own data.

Covers: perturbing a set of modules and restoring it exactly. Not here: measuring (probe_activations), training the
probe (core.training.probe).
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Self

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.errors import InvalidInput
from core.lm.adapter import base_model, factors, lora_layers
from core.lm.modules import Module, by_map, find_modules, weight_of


class Noise:
    """Adds Gaussian noise to a module. Its norm is a given share of the Frobenius norm of the module's weight."""

    def __init__(self, model: PreTrainedModel, modules: Sequence[Module], *, relative_norm: float, seed: int) -> None:
        """Perturbs nothing yet. The noise of a module depends on `seed` and on the module's position only.

        Raises:
            InvalidInput: code `noise_needs_full_precision`; the weights are stored in 4 bits.
        """
        self.model = model
        self._index = {module.name: (number, module) for number, module in enumerate(modules)}
        self._relative_norm = relative_norm
        self._seed = seed
        if not all(weight_of(model, module).is_floating_point() for module in modules):
            raise InvalidInput(
                "Noise cannot be added to weights that are stored in 4 bits. Use the perturbation `gradient` or "
                "`swap`, or a training method with a base model in full precision.",
                code="noise_needs_full_precision",
                param="strategy.analysis.perturbation",
            )

    @contextmanager
    def perturbed(self, names: Collection[str]) -> Iterator[None]:
        """Add the noise to these modules only. The saved weights are restored, so that no rounding remains."""
        saved: list[tuple[nn.Parameter, _Place, Tensor]] = []
        try:
            with torch.no_grad():
                for name in names:
                    number, module = self._index[name]
                    weight = weight_of(self.model, module)
                    place = _place(module, weight)
                    own = weight[place].clone()
                    saved.append((weight, place, own))
                    weight[place] = (own.float() + self._draw(own, number)).to(own.dtype)
            yield
        finally:
            with torch.no_grad():
                for weight, place, original in reversed(saved):  # two modules may share a weight
                    weight[place] = original

    def _draw(self, own: Tensor, number: int) -> Tensor:
        # One generator for each module: its noise does not depend on the other modules.
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + number)
        noise = torch.randn(own.shape, generator=generator)
        return (noise * (self._relative_norm * own.float().norm().cpu() / noise.norm())).to(own.device)


class Swap:
    """Applies the update of a trained probe adapter to chosen modules.

    A part of a fused map has its own rows of the update: the rows of B of the other parts are set to zero meanwhile.
    """

    def __init__(self, tuned: PeftModel) -> None:
        self.model = tuned
        modules = by_map(find_modules(base_model(tuned)))
        self._updates = [_Update(layer, modules[name]) for name, layer in lora_layers(tuned).items()]
        self._scale = 1.0

    def scaled(self, factor: float) -> Self:
        """The same update, multiplied by `factor`."""
        other = copy(self)
        other._scale = factor
        return other

    @contextmanager
    def perturbed(self, names: Collection[str]) -> Iterator[None]:
        """Apply the update to these modules only; the model equals the base model afterwards."""
        try:
            for update in self._updates:
                update.switch(names, self._scale)
            yield
        finally:
            for update in self._updates:
                update.switch(())


PerturbedModel = Noise | Swap
"""A model whose modules can be perturbed, any set of them at a time."""


class _Update:
    """The update of one map."""

    def __init__(self, layer: LoraLayer, modules: Sequence[Module]) -> None:
        self._layer, self._modules = layer, modules
        self._scaling = layer.scaling["default"]
        self._b = factors(layer)[1]
        self._whole = self._b.detach().clone() if len(modules) > 1 else None
        self._perturbed: list[Module] | None = None

    @torch.no_grad()
    def switch(self, names: Collection[str], update_scale: float = 1.0) -> None:
        """Apply the update, times `update_scale`, to those of its modules that are named, and to no other."""
        perturbed = [module for module in self._modules if module.name in names]
        if perturbed == self._perturbed:
            return
        self._perturbed = perturbed
        self._layer.enable_adapters(bool(perturbed))  # a disabled adapter costs no time, a scale of 0 costs it all
        self._layer.scaling["default"] = update_scale * self._scaling if perturbed else 0.0
        if self._whole is not None:
            self._b.copy_(self._whole)
            for module in self._modules:
                if perturbed and module not in perturbed:
                    self._b[module.indexes(self._b.device)] = 0.0


_Place = tuple[slice | Tensor, ...]


def _place(module: Module, weight: Tensor) -> _Place:
    """Index of the module's own part in the weight of its map."""
    rows = module.indexes(weight.device)
    return (slice(None),) * module.axis + (slice(None) if rows is None else rows,)
