"""Leaves adapters out of the forward pass that change nothing: those that are not trained now and never were before.

B of such an adapter is zero, so the model says the same without it, and every step is cheaper. Experts' adapters, which
peft lays into the weights, always take part. Not here: which parameters are trained (core.training.rates).
"""

from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper

from core.lm.adapter import factors, lora_layers
from core.training.groups import Tuned


def rest(tuned: Tuned) -> None:
    """Only adapters that are trained, or that change something, take part from here on."""
    for layer in _layers(tuned):
        pairs = list(factors(layer))
        trained = any(a.requires_grad or b.requires_grad for a, b in pairs)
        _take_part(layer, trained or any(bool(b.count_nonzero()) for _, b in pairs))


def wake(tuned: Tuned) -> None:
    """All of them take part again."""
    for layer in _layers(tuned):
        _take_part(layer, True)


def _layers(tuned: Tuned) -> list[LoraLayer]:
    found = lora_layers(tuned).values() if isinstance(tuned, PeftModel) else ()
    return [layer for layer in found if not isinstance(layer, ParamWrapper)]


def _take_part(layer: LoraLayer, wanted: bool) -> None:
    # peft lets every adapter that takes part ask for gradients: what asked before is what asks afterwards.
    asked = [(parameter, parameter.requires_grad) for pair in factors(layer) for parameter in pair]
    layer.set_adapter(list(layer.lora_A) if wanted else [])
    for parameter, before in asked:
        parameter.requires_grad_(before)
