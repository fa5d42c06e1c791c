"""Objectives other than the usual one: what the training loop makes small.

Covers: the constrained loss of Qi et al. 2024 ("Safety Alignment Should Be Made More Than Just a Few Tokens Deep",
section 4), with an answer's first tokens held to the base model. Not here: the usual objective and the loop
(core.training.loop).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import log

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from core.data.batches import Batch
from core.data.template import IGNORED
from core.schemas.safeguards import ConstrainedFirstTokens, Safeguards
from core.training.loop import Objective, next_token_loss


def objective_of(safeguards: Safeguards) -> Objective:
    """What an arm with these safeguards makes small."""
    spec = safeguards.constrained_first_tokens
    return next_token_loss if spec is None else constrained(spec)


def constrained(spec: ConstrainedFirstTokens) -> Objective:
    """The constrained loss, with the model without its adapter as the reference.

    Works on a PeftModel; the reference costs a second forward pass, without a gradient and without dropout.
    """

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        if not isinstance(model, PeftModel):
            raise TypeError("the reference is the model without its adapter, and this model has none")
        with _reference(model), torch.no_grad():
            reference = token_log_probabilities(model, batch)
        strengths = strength_of_each(spec, batch.labels[:, 1:])
        losses = constrained_losses(token_log_probabilities(model, batch), reference, strengths)
        trained = batch.labels[:, 1:] != IGNORED
        return losses[trained].mean()

    return objective


def constrained_losses(ours: Tensor, reference: Tensor, strengths: Tensor) -> Tensor:
    """-(2/beta) log sigmoid(beta (ours - reference)) of each token, plus what makes it read as cross-entropy.

    The gradient is that of cross-entropy times 2 sigmoid(beta (reference - ours)): 1 at the base model, less the
    further a token's probability has risen above the base's, and up to 2 where it has fallen below. Two terms that no
    parameter moves are added, (2/beta) log 1/2 and -reference: so the value is the cross-entropy where ours is the
    reference, and goes to the cross-entropy everywhere as beta goes to 0.
    """
    return -(logsigmoid(strengths * (ours - reference)) + log(2.0)) * 2.0 / strengths - reference


def strength_of_each(spec: ConstrainedFirstTokens, labels: Tensor) -> Tensor:
    """The strength at each place, `batch seq`, by the place in its own answer: a run of labels is one answer."""
    trained = labels != IGNORED
    places = torch.arange(labels.shape[1], device=labels.device).expand_as(labels)
    begins = trained.clone()
    begins[:, 1:] &= ~trained[:, :-1]
    number = places - torch.where(begins, places, 0).cummax(dim=1).values
    strengths = torch.full(labels.shape, spec.rest, device=labels.device)
    strengths[number < spec.tokens] = spec.early
    strengths[number == 0] = spec.first
    return strengths


def token_log_probabilities(model: nn.Module, batch: Batch) -> Tensor:
    """Log-probability of each label, float32, `batch seq-1`; 0 where none is trained on."""
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    labels = batch.labels[:, 1:]
    chosen = labels.masked_fill(labels == IGNORED, 0)[..., None]
    found = logits[:, :-1].float().log_softmax(-1).gather(-1, chosen)[..., 0]
    return found.masked_fill(labels == IGNORED, 0.0)


@contextmanager
def _reference(model: PeftModel) -> Iterator[None]:
    """The model as it was before its adapter.

    peft lets every adapter parameter ask for gradients again afterwards, also those that a plan has frozen: they are
    put back as they were.
    """
    asked = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    training = model.training
    try:
        with model.disable_adapter():
            model.eval()
            yield
    finally:
        model.train(training)
        for parameter, before in asked:
            parameter.requires_grad_(before)
