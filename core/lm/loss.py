"""The loss of a model on given tokens, for each row.

Not here: batching, and the interpretation of the loss (core.quality, core.robustness).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


def row_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood of each row's labelled tokens, nats per token, float32, shape `batch`.

    Args:
        logits: the model's output, `batch seq vocabulary`.
        labels: `batch seq`, -100 for tokens that do not count; aligned with the input and shifted here.
    """
    shifted = labels[:, 1:]
    each = cross_entropy(logits[:, :-1].float().transpose(1, 2), shifted, ignore_index=-100, reduction="none")
    return each.sum(1) / (shifted != -100).sum(1).clamp(min=1)


@torch.inference_mode()
def batch_losses(model: nn.Module, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
    """`row_losses` of the model's output for a batch."""
    return row_losses(model(input_ids=input_ids, attention_mask=attention_mask).logits, labels)
