"""Forward and backward passes of one batch: the gradients of a step, and the loss on validation rows.

Not here: the optimizer and when these are computed (core.training.loop).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.data.batches import Batch, collate
from core.data.encoded import Encoded
from core.data.order import micro_batches
from core.lm.loss import batch_losses, find_labels, token_losses
from core.training.groups import Tuned

_VALIDATION_BATCH = 16

Objective = Callable[[nn.Module, Batch], Tensor]
"""The minimised function: returns the mean over the batch's trained tokens for (model, batch)."""


def next_token_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The default objective: mean negative log-likelihood of the trained tokens, nats per token."""
    positions, wanted = find_labels(batch.labels)
    return token_losses(model, batch.input_ids, batch.attention_mask, positions, wanted).mean()


@dataclass(frozen=True)
class Passes:
    """How batches of a run are computed."""

    tuned: Tuned
    objective: Objective
    pad_id: int
    batch_size: int
    """Largest number of rows in one forward pass."""
    half: bool
    """Whether the passes are computed in bfloat16."""

    def autocast(self) -> torch.autocast:
        """Computes what is in this context as the passes are."""
        return torch.autocast(self.tuned.device.type, dtype=torch.bfloat16, enabled=self.half)

    def accumulate(self, rows: Sequence[Encoded]) -> Tensor:
        """Add the gradients of all micro-batches of a batch to the parameters, and return the batch's loss.

        Every trained token has the same weight, whatever micro-batch its row is in.
        """
        parts = [collate(part, self.pad_id) for part in micro_batches(rows, self.batch_size)]
        tokens = [part.trained_tokens for part in parts]
        whole = torch.zeros((), device=self.tuned.device)
        for part, count in zip(parts, tokens, strict=True):
            if not count:
                continue
            with self.autocast():
                loss = self.objective(self.tuned, part.to(self.tuned.device)) * (count / sum(tokens))
            loss.backward()
            whole += loss.detach()
        return whole

    def held_out_loss(self, rows: Sequence[Encoded]) -> float:
        """Mean loss of rows, nats per token. Each row has the same weight, as in the task figures."""
        size = min(_VALIDATION_BATCH, self.batch_size)
        ordered = sorted(rows, key=lambda row: len(row.input_ids))
        losses: list[float] = []
        for first in range(0, len(ordered), size):
            batch = collate(ordered[first : first + size], self.pad_id).to(self.tuned.device)
            with self.autocast():
                losses += batch_losses(self.tuned, batch.input_ids, batch.attention_mask, batch.labels).tolist()
        return math.fsum(losses) / len(losses)
