"""`scale_update`: after training, multiplies the whole update of the trained weights by a factor.

Source: arXiv 2412.19512 merges a tuned model with its base model to keep safety; for a merge by interpolation, that is
this scaling. An adapter's B is scaled, so the product B A is. Own weights w become base + factor (w - base).

The factor is given, or the largest of a fixed grid at which the refusal drift on probe prompts stays within a bound.
Safeguards that change the weights earlier are measured with it. Not here: early stopping (keep_safe_weights).
"""

import math
from collections.abc import Callable

import torch
from peft import PeftModel
from pydantic import JsonValue
from torch import Tensor, nn
from transformers import PreTrainedModel
from typing_extensions import override

from core.lm.adapter import factors, lora_layers
from core.lm.full import Originals
from core.lm.precision import uses_bfloat16
from core.safeguards.interface import Safeguard, SafeguardContext, TrainedContext
from core.schemas.results import SafeguardEffect
from core.schemas.safeguards import ScaleUpdate


class UpdateScale(Safeguard[ScaleUpdate]):
    """Scales the trained update."""

    options_class = ScaleUpdate

    @override
    def inputs(self, context: SafeguardContext) -> JsonValue:
        return list(context.prompts.unreported_harmful)

    @override
    def after_training(self, context: TrainedContext, tuned: PeftModel | PreTrainedModel) -> SafeguardEffect:
        update, nll = Update(tuned, context.originals), context.refusal_nll

        def measure(factor: float) -> float:
            update.scale(factor)
            if nll is None:
                return math.nan
            with torch.autocast(tuned.device.type, dtype=torch.bfloat16, enabled=uses_bfloat16(tuned)):
                return nll(tuned)

        return apply_factor(self.options, measure)


def apply_factor(options: ScaleUpdate, measure: Callable[[float], float]) -> SafeguardEffect:
    """Apply the given factor, or the largest one whose refusal drift is within the bound, or the smallest if none is.

    `measure` scales the update by a factor and returns the negative log-likelihood of refusals, in nats per token; NaN
    if there are none to measure. With factor 0 it measures the base model.
    """
    base = measure(0.0)
    factor, drift = 1.0, math.nan
    for factor in options.tried:
        drift = measure(factor) - base
        if options.bound is not None and drift <= options.bound:
            break
    summary = f"update scaled by {factor:g}"
    if math.isfinite(drift):
        summary += f", with a refusal drift of {drift:.2g} nats per token"
    if options.bound is not None and not drift <= options.bound:
        summary += f"; no factor stays within {options.bound:g}, and this is the smallest one"
    values = {"factor": factor, "refusal_drift": drift}
    return SafeguardEffect(
        safeguard=options.name,
        summary=summary,
        values={name: value for name, value in values.items() if math.isfinite(value)},
    )


class Update:
    """The difference between trained weights and the base model, which can be scaled repeatedly without loss.

    Takes as much host memory as the parameters that are scaled: every B of an adapter, or all trained weights.
    """

    def __init__(self, tuned: PeftModel | PreTrainedModel, originals: Originals) -> None:
        """Remember the current weights. `originals` are the base model's own values; empty for an adapter."""
        self._base: dict[nn.Parameter, Tensor | None] = dict(originals)
        if isinstance(tuned, PeftModel):  # without B, an adapter changes nothing
            self._base = {factors(layer)[1]: None for layer in lora_layers(tuned).values()}
        self._trained = {parameter: parameter.detach().to("cpu", copy=True) for parameter in self._base}

    @torch.no_grad()
    def scale(self, factor: float) -> None:
        """Give the model the base weights plus `factor` times the remembered update: 1 is the update as trained."""
        for parameter, trained in self._trained.items():
            base = self._base[parameter]
            start = torch.zeros_like(trained) if base is None else base.to(trained.dtype)
            parameter.copy_(torch.lerp(start, trained, factor))
