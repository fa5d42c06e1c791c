"""`constrained_first_tokens`: a loss that keeps the first tokens of each answer close to the base model.

Source: Qi et al. 2024, "Safety Alignment Should Be Made More Than Just a Few Tokens Deep", section 4. Not here: the
usual loss and the training loop (core.training.loop).
"""

from math import log

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from typing_extensions import override

from core.data.batches import Batch
from core.data.encoded import IGNORED
from core.lm.adapter import adapter_off
from core.lm.loss import find_labels, token_losses
from core.safeguards.interface import ChangedLoss, Safeguard, SafeguardContext
from core.schemas.progress import OnProgress
from core.schemas.safeguards import ConstrainedFirstTokens
from core.training.loop import Objective


class ConstrainedLoss(Safeguard[ConstrainedFirstTokens]):
    """Trains with the constrained loss instead of cross-entropy."""

    options_class = ConstrainedFirstTokens

    @override
    def objective(self, objective: Objective, context: SafeguardContext, on_progress: OnProgress) -> ChangedLoss:
        return ChangedLoss(constrained_loss(self.options))


def constrained_loss(options: ConstrainedFirstTokens) -> Objective:
    """The constrained loss; the reference is the same model with its adapter turned off.

    Works on a PeftModel. The reference takes a second forward pass, without gradients and without dropout.
    """

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        if not isinstance(model, PeftModel):
            raise TypeError("the constrained loss needs an adapter: core.catalog.check_runs rejects full fine-tuning")
        with adapter_off(model) as base:
            reference = token_log_probabilities(base, batch)
        strengths = strengths_by_position(options, batch.labels[:, 1:])
        losses = constrained_losses(token_log_probabilities(model, batch), reference, strengths)
        trained = batch.labels[:, 1:] != IGNORED
        return losses[trained].mean()

    return objective


def constrained_losses(ours: Tensor, reference: Tensor, strengths: Tensor) -> Tensor:
    """-(2/beta) log sigmoid(beta (ours - reference)) of each token, shifted to be comparable with cross-entropy.

    The gradient is that of cross-entropy times 2 sigmoid(beta (reference - ours)). The factor is 1 at the base model,
    smaller if a token's probability has risen above the base model's, and up to 2 if it has fallen below. The shift,
    (2/beta) log 1/2 - reference, does not depend on the parameters. With it the value equals the cross-entropy if ours
    equals the reference, and approaches the cross-entropy everywhere as beta approaches 0.
    """
    return -(logsigmoid(strengths * (ours - reference)) + log(2.0)) * 2.0 / strengths - reference


def strengths_by_position(options: ConstrainedFirstTokens, labels: Tensor) -> Tensor:
    """The strength at each position, `batch seq`; consecutive labels are one answer, whose positions count from 0."""
    trained = labels != IGNORED
    positions = torch.arange(labels.shape[1], device=labels.device).expand_as(labels)
    begins = trained.clone()
    begins[:, 1:] &= ~trained[:, :-1]
    number = positions - torch.where(begins, positions, 0).cummax(dim=1).values
    strengths = torch.full(labels.shape, options.rest, device=labels.device)
    strengths[number < options.tokens] = options.early
    strengths[number == 0] = options.first
    return strengths


def token_log_probabilities(model: nn.Module, batch: Batch) -> Tensor:
    """Log-probability of each label, float32, `batch seq-1`; 0 at positions without a label."""
    positions, wanted = find_labels(batch.labels)
    losses = token_losses(model, batch.input_ids, batch.attention_mask, positions, wanted)
    nothing = torch.zeros(batch.labels[:, 1:].shape, device=losses.device)
    return nothing.index_put((positions[:, 0], positions[:, 1]), -losses)
