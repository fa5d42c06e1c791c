"""The loss of a model on labelled tokens: for each token, and the mean of each row.

Not here: batching, and the interpretation of the loss (core.quality, core.robustness, core.training).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from core.lm.logits import logits_at

_IGNORED = -100


def find_labels(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Where a label follows, and those labels.

    `labels` is -100 for tokens that do not count, `batch seq`, aligned with the input and shifted here. Returns
    positions as (row, position), `tokens 2`, and the token that follows each, `tokens`.
    """
    shifted = labels[:, 1:]
    positions = (shifted != _IGNORED).nonzero()
    return positions, shifted[positions[:, 0], positions[:, 1]]


def token_losses(
    model: nn.Module, input_ids: Tensor, attention_mask: Tensor, positions: Tensor, wanted: Tensor
) -> Tensor:
    """Negative log-likelihood of the token `wanted` after each position, nats, float32: `tokens`."""
    logits = logits_at(model, input_ids, attention_mask, positions)
    return cross_entropy(logits.float(), wanted, reduction="none")


def row_means(values: Tensor, positions: Tensor, rows: int) -> Tensor:
    """Mean of the values of each row, `rows`; 0 for a row without any."""
    total = torch.zeros(rows, device=values.device).index_add(0, positions[:, 0], values)
    return total / torch.bincount(positions[:, 0], minlength=rows).clamp(min=1)


@torch.inference_mode()
def batch_losses(model: nn.Module, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood of each row's labelled tokens, nats per token, float32, shape `batch`.

    `labels` is -100 for tokens that do not count, `batch seq`, aligned with the input.
    """
    positions, wanted = find_labels(labels)
    return row_means(token_losses(model, input_ids, attention_mask, positions, wanted), positions, len(labels))
