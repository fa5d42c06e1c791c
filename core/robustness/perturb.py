"""Ways of changing modules: Gaussian noise, or the update that a short probe run on the job's own data made.

Covers: putting a set of modules into their changed state and back, exactly. Not here: measuring (probe), the probe run
itself (its caller trains it).
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.lm.adapter import module_of
from core.lm.modules import Module, weight_of


class Moved(Protocol):
    """A model whose modules can be moved, any set of them at a time."""

    @property
    def model(self) -> nn.Module:
        """The model to measure."""
        ...

    def moved(self, names: Collection[str]) -> AbstractContextManager[None]:
        """The model with exactly these modules in their changed state; as the base afterwards."""
        ...


class Noise:
    """Each module's change is a fixed draw of Gaussian noise of a given share of its weight's Frobenius norm."""

    def __init__(self, model: PreTrainedModel, modules: Sequence[Module], *, relative_norm: float, seed: int) -> None:
        self.model = model
        self._index = {module.name: (number, module) for number, module in enumerate(modules)}
        self._relative_norm = relative_norm
        self._seed = seed

    @contextmanager
    def moved(self, names: Collection[str]) -> Iterator[None]:
        """Add the noise of these modules; the saved weights are put back, so nothing is left by rounding."""
        saved: list[tuple[nn.Parameter, Tensor]] = []
        try:
            with torch.no_grad():
                for name in names:
                    number, module = self._index[name]
                    weight = weight_of(self.model, module)
                    saved.append((weight, weight.detach().clone()))
                    weight += self._draw(weight, number)
            yield
        finally:
            with torch.no_grad():
                for weight, original in reversed(saved):  # a weight that two modules share is in it twice
                    weight.copy_(original)

    def _draw(self, weight: Tensor, number: int) -> Tensor:
        # One generator a module: its noise is the same whichever other modules are moved with it.
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + number)
        noise = torch.randn(weight.shape, generator=generator)
        return (noise * (self._relative_norm * weight.norm().cpu() / noise.norm())).to(weight)


class Swap:
    """Each module's change is the update that a trained probe adapter holds for it."""

    def __init__(self, tuned: PeftModel) -> None:
        self.model = tuned
        self._layers = {
            module_of(f"{name}.lora_"): (layer, dict(layer.scaling))
            for name, layer in tuned.named_modules()
            if isinstance(layer, LoraLayer)
        }

    @contextmanager
    def moved(self, names: Collection[str]) -> Iterator[None]:
        """Switch the probe's update on for these modules and off for all others."""
        try:
            self._switch(names)
            yield
        finally:
            self._switch(())

    def _switch(self, names: Collection[str]) -> None:
        for name, (layer, scaling) in self._layers.items():
            for adapter, scale in scaling.items():
                layer.scaling[adapter] = scale if name in names else 0.0
