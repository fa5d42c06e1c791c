"""`average_weights`: ends a run with an exponential moving average of its weights over the steps.

Source: arXiv 2508.12531 reports fewer unsafe answers after benign tuning with such an average. It begins at the initial
weights and has no warm-up of the decay: a warm-up would forget the base model within a few steps, and the base model's
share is what protects short runs. The price is that short runs learn less.

The factors of an adapter, A and B, are averaged each. That is not the average of the updates B A: products of weights
of different steps are in it too. A changes little during a run, and the initial B is 0, so the average still begins at
the base model.
Not here: the average itself (core.training.kept).
"""

from dataclasses import replace

from peft import PeftModel
from transformers import PreTrainedModel
from typing_extensions import override

from core.safeguards.interface import Safeguard, TrainedContext
from core.schemas.results import SafeguardEffect
from core.schemas.safeguards import AverageWeights
from core.training.kept import EndWeights


class WeightAverage(Safeguard[AverageWeights]):
    """Averages the trained weights."""

    options_class = AverageWeights

    @override
    def end_weights(self, chosen: EndWeights) -> EndWeights:
        return replace(chosen, decay=self.options.decay)

    @override
    def after_training(self, context: TrainedContext, tuned: PeftModel | PreTrainedModel) -> SafeguardEffect:
        step = context.trained.end_step
        share = self.options.decay**step
        return SafeguardEffect(
            safeguard=self.options.name,
            summary=f"weights averaged over {step} steps, with {100 * share:.2g} % of the base model's",
            values={"base_share": share},
        )
