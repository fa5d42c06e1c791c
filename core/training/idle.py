"""Skips adapters that have no effect in the forward pass: those that are not trained now and were never trained.

The B matrix of such an adapter is zero, so the output does not change and every step is cheaper. Adapters of experts,
which peft adds to the weights, are never skipped. Not here: which parameters are trained (core.training.rates).
"""

from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper

from core.lm.adapter import factors, keep_requires_grad, lora_layers
from core.training.groups import Tuned


def disable_idle_adapters(tuned: Tuned) -> None:
    """Enable only adapters that are trained or that change the output."""
    for layer in _layers(tuned):
        a, b = factors(layer)
        _enable(layer, a.requires_grad or b.requires_grad or bool(b.count_nonzero()))


def enable_all_adapters(tuned: Tuned) -> None:
    """Enable all adapters again."""
    for layer in _layers(tuned):
        _enable(layer, True)


def _layers(tuned: Tuned) -> list[LoraLayer]:
    layers = lora_layers(tuned).values() if isinstance(tuned, PeftModel) else ()
    return [layer for layer in layers if not isinstance(layer, ParamWrapper)]


def _enable(layer: LoraLayer, enabled: bool) -> None:
    with keep_requires_grad(factors(layer)):
        layer.set_adapter(list(layer.lora_A) if enabled else [])
