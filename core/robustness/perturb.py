"""Ways of changing modules: Gaussian noise, or the update that a short probe run on the job's own data made.

Covers: putting a set of modules into their changed state and back, exactly. Not here: measuring (readings), the
probe run itself (its caller trains it).
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from typing import Protocol, Self

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.errors import InvalidInput
from core.lm.adapter import base_model, factors, lora_layers
from core.lm.modules import Module, by_map, find_modules, weight_of


class Moved(Protocol):
    """A model whose modules can be moved, any set of them at a time."""

    @property
    def model(self) -> PeftModel | PreTrainedModel:
        """The model to measure."""
        ...

    def moved(self, names: Collection[str]) -> AbstractContextManager[None]:
        """The model with exactly these modules in their changed state; as the base afterwards."""
        ...


class Noise:
    """Each module's change is a fixed draw of Gaussian noise of a given share of its weight's Frobenius norm."""

    def __init__(self, model: PreTrainedModel, modules: Sequence[Module], *, relative_norm: float, seed: int) -> None:
        """Moves nothing yet.

        Raises:
            InvalidInput: code `noise_needs_full_precision`; the weights are kept in 4 bits.
        """
        self.model = model
        self._index = {module.name: (number, module) for number, module in enumerate(modules)}
        self._relative_norm = relative_norm
        self._seed = seed
        if not all(weight_of(model, module).is_floating_point() for module in modules):
            raise InvalidInput(
                "Noise cannot be added to weights that are kept in 4 bits. Measure with the perturbation `gradient` or "
                "`swap`, or tune with a method that keeps the base in full precision.",
                code="noise_needs_full_precision",
                param="strategy.analysis.perturbation",
            )

    @contextmanager
    def moved(self, names: Collection[str]) -> Iterator[None]:
        """Add the noise of these modules; the saved weights are put back, so nothing is left by rounding."""
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
                for weight, place, original in reversed(saved):  # a weight that two modules share is in it twice
                    weight[place] = original

    def _draw(self, own: Tensor, number: int) -> Tensor:
        # One generator a module: its noise is the same whichever other modules are moved with it.
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + number)
        noise = torch.randn(own.shape, generator=generator)
        return (noise * (self._relative_norm * own.float().norm().cpu() / noise.norm())).to(own.device)


class Swap:
    """Each module's change is the update that a trained probe adapter holds for it.

    Of a fused map it is the part's rows of the update: the rows of B that are not moved are zero meanwhile.
    """

    def __init__(self, tuned: PeftModel) -> None:
        self.model = tuned
        modules = by_map(find_modules(base_model(tuned)))
        self._updates = [_Update(layer, modules[name]) for name, layer in lora_layers(tuned).items()]
        self._stretch = 1.0

    def stretched(self, factor: float) -> Self:
        """The same update, so many times as large wherever it is on."""
        other = copy(self)
        other._stretch = factor
        return other

    @contextmanager
    def moved(self, names: Collection[str]) -> Iterator[None]:
        """Switch the probe's update on for these modules and off for all others."""
        try:
            for update in self._updates:
                update.switch(names, self._stretch)
            yield
        finally:
            for update in self._updates:
                update.switch(())


class _Update:
    """The update of one map."""

    def __init__(self, layer: LoraLayer, modules: Sequence[Module]) -> None:
        self._layer, self._modules = layer, modules
        self._scaling = dict(layer.scaling)
        parted = len(modules) > 1
        self._whole = [(b, b.detach().clone()) for _, b in factors(layer)] if parted else []
        self._moved: list[Module] | None = None

    @torch.no_grad()
    def switch(self, names: Collection[str], update_scale: float = 1.0) -> None:
        """On for these of its modules, as large as asked, and off for the others."""
        moved = [module for module in self._modules if module.name in names]
        if moved == self._moved:
            return
        self._moved = moved
        self._layer.enable_adapters(bool(moved))  # one that is off costs nothing, one of scale 0 as much as any
        for adapter, scale in self._scaling.items():
            self._layer.scaling[adapter] = update_scale * scale if moved else 0.0
        for b, whole in self._whole:
            b.copy_(whole)
            for module in self._modules:
                if moved and module not in moved:
                    b[module.indexes(b.device)] = 0.0


_Place = tuple[slice | Tensor, ...]


def _place(module: Module, weight: Tensor) -> _Place:
    """Where in the map's weight the module's own is."""
    rows = module.indexes(weight.device)
    everything = slice(None)
    return tuple(rows if axis == module.axis and rows is not None else everything for axis in range(weight.ndim))
