"""`keep_safe_weights`: early stopping on the security curve.

A run ends with the weights of its last measurement whose refusal drift is within a bound. Source: early stopping
(Prechelt 1998, "Early Stopping - But When?"), by the refusal drift instead of the validation loss; that figure and the
rule are this project's own. The drift is measured on few prompts and on the first tokens of answers, so a small drift
is no proof that attacks fail.
Not here: measuring the drift (core.training.loop), the kept copy (core.training.kept).
"""

from dataclasses import replace

from peft import PeftModel
from pydantic import JsonValue
from transformers import PreTrainedModel
from typing_extensions import override

from core.safeguards.interface import Safeguard, SafeguardContext, TrainedContext
from core.schemas.results import SafeguardEffect
from core.schemas.safeguards import KeepSafeWeights
from core.training.kept import EndWeights


class LastSafeWeights(Safeguard[KeepSafeWeights]):
    """Keeps the weights of the last measurement within the bound."""

    options_class = KeepSafeWeights

    @override
    def inputs(self, context: SafeguardContext) -> JsonValue:
        return list(context.prompts.unreported_harmful)

    @override
    def end_weights(self, chosen: EndWeights) -> EndWeights:
        return replace(chosen, max_refusal_drift=self.options.max_refusal_drift, drift_patience=self.options.patience)

    @override
    def after_training(self, context: TrainedContext, tuned: PeftModel | PreTrainedModel) -> SafeguardEffect:
        trained = context.trained
        (kept,) = [point for point in trained.security if point.step == trained.end_step]
        return SafeguardEffect(
            safeguard=self.options.name,
            summary=f"weights of step {kept.step} of {trained.steps} kept, with a refusal drift of "
            f"{kept.refusal_drift:.2g} nats per token",
            counts={"step": kept.step},
            values={"refusal_drift": kept.refusal_drift},
        )
