"""`kl_to_base`: adds the KL divergence from the base model's predictions to the loss.

Sources: Kaczér et al. 2025, "In-Training Defenses against Emergent Misalignment in Language Models" (arXiv 2508.06249),
on the job's own rows; logit replay as in continual learning (arXiv 2512.10150) on rows that show what to keep, here the
base model's refusals and its answers to safe look-alikes. Not here: how these are collected
(core.safeguards.safety_rows), what the base model predicts on them (core.safeguards.replay), the loop
(core.training.loop).
"""

from collections.abc import Sequence

import torch
from peft import PeftModel
from pydantic import JsonValue
from torch import Tensor, nn
from torch.nn.functional import kl_div
from typing_extensions import override

from core.data.batches import Batch
from core.data.frame import find_frame
from core.errors import TrainingFailed
from core.lm.adapter import adapter_off
from core.lm.logits import logits_at
from core.lm.loss import find_labels
from core.safeguards.interface import ChangedLoss, Safeguard, SafeguardContext
from core.safeguards.replay import Predicted, kl_from_predictions, predict
from core.safeguards.safety_rows import MIN_REFUSALS, SafetyRows, collect, collecting_inputs
from core.schemas.progress import OnProgress
from core.schemas.results import SafeguardEffect
from core.schemas.safeguards import KlToBase
from core.training.loop import Objective


class KlLoss(Safeguard[KlToBase]):
    """Adds the divergence on safety rows of the base model, on the job's own rows, or on both."""

    options_class = KlToBase

    @override
    def inputs(self, context: SafeguardContext) -> JsonValue:
        return None if self.options.rows == "own" else collecting_inputs(context)

    @override
    def objective(self, objective: Objective, context: SafeguardContext, on_progress: OnProgress) -> ChangedLoss:
        """See the base class.

        Raises:
            TrainingFailed: code `no_safety_rows`.
        """
        refusals, answers = ((), ()) if self.options.rows == "own" else self._collect(context, on_progress)
        where = {"own": "the job's rows", "safety": f"{len(refusals)} refusals and {len(answers)} safe answers"}
        where["both"] = f"{where['own']}, {where['safety']}"
        effect = SafeguardEffect(
            safeguard=self.options.name,
            summary=f"KL divergence from the base model in the loss, on {where[self.options.rows]}",
            counts={"refusals": len(refusals), "safe_answers": len(answers)},
        )
        kept = predict(context.base, refusals), predict(context.base, answers)
        return ChangedLoss(add_kl(objective, self.options, *kept, context.base.pad_id), effect)

    def _collect(self, context: SafeguardContext, on_progress: OnProgress) -> SafetyRows:
        """The safety rows; none if there are too few refusals and the run goes on without them."""
        options, frame = self.options, find_frame(context.rows)
        steps = context.spec.training.total_steps(len(context.rows))
        asked = options.asked(context.prompts, steps=steps, framed=frame is not None)
        found = collect(context, asked, framings=options.framings, frame=frame, on_progress=on_progress)
        if len(found.refusals) >= MIN_REFUSALS:
            return SafetyRows(*(tuple(row.first_trained(options.answer_tokens) for row in rows) for rows in found))
        if options.on_too_few == "fail":
            raise _too_few(len(found.refusals))
        return SafetyRows((), ())


def add_kl(
    objective: Objective, options: KlToBase, refusals: Sequence[Predicted], answers: Sequence[Predicted], pad_id: int
) -> Objective:
    """The loss with the divergence added."""

    def total(model: nn.Module, batch: Batch) -> Tensor:
        loss = objective(model, batch)
        if options.rows != "safety":
            loss = loss + options.weight * kl_from_base(model, batch)
        if chosen := _draw(options, refusals, answers):
            loss = loss + options.weight * kl_from_predictions(model, chosen, pad_id)
        return loss

    return total


def _draw(options: KlToBase, refusals: Sequence[Predicted], answers: Sequence[Predicted]) -> list[Predicted]:
    """The safety rows of a batch, drawn with torch's generator, whose state is in every checkpoint."""
    if options.safe_share is None:
        return _choose((*refusals, *answers), options.safety_rows)
    # Rounded up or down at random, so that the share is right on average.
    safe = min(int(options.safe_share * options.safety_rows + torch.rand(()).item()), len(answers))
    return [*_choose(refusals, options.safety_rows - safe), *_choose(answers, safe)]


def _choose(rows: Sequence[Predicted], count: int) -> list[Predicted]:
    return [rows[index] for index in torch.randperm(len(rows))[:count].tolist()]


def kl_from_base(model: nn.Module, batch: Batch) -> Tensor:
    """KL(base || tuned), the mean over the positions that a label follows, nats.

    The base is the same model with its adapter turned off, in a second forward pass without gradients and dropout.
    """
    if not isinstance(model, PeftModel):
        raise TypeError("on own rows kl_to_base needs an adapter: core.catalog.check_runs rejects full fine-tuning")
    positions, _ = find_labels(batch.labels)
    with adapter_off(model) as base:
        reference = _log_probabilities(base, batch, positions)
    return kl_div(_log_probabilities(model, batch, positions), reference, log_target=True, reduction="batchmean")


def _log_probabilities(model: nn.Module, batch: Batch, positions: Tensor) -> Tensor:
    """Log-probabilities of the token after each position, float32: `tokens vocabulary`."""
    return logits_at(model, batch.input_ids, batch.attention_mask, positions).float().log_softmax(dim=-1)


def _too_few(refusals: int) -> TrainingFailed:
    return TrainingFailed(
        f"The base model refuses only {refusals} of the prompt set's harmful probe prompts in a usable way, and "
        f"kl_to_base needs {MIN_REFUSALS}. Use an aligned base model, choose a prompt set that it refuses, set "
        "kl_to_base.rows to own, or kl_to_base.on_too_few to skip.",
        code="no_safety_rows",
        param="strategy.safeguards.kl_to_base",
    )
