"""How well a model predicts given tokens, row by row.

Not here: batching, and what the loss means (core.quality, core.robustness).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


def row_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood of each row's labelled tokens, nats per token, float32, shape `batch`.

    Args:
        logits: `batch seq vocabulary`, as the model gives them.
        labels: `batch seq`, -100 where a token does not count; aligned with the input, shifted in here.
    """
    shifted = labels[:, 1:]
    each = cross_entropy(logits[:, :-1].float().transpose(1, 2), shifted, ignore_index=-100, reduction="none")
    return each.sum(1) / (shifted != -100).sum(1).clamp(min=1)


@torch.inference_mode()
def batch_losses(model: nn.Module, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
    """The same, asking the model first."""
    return row_losses(model(input_ids=input_ids, attention_mask=attention_mask).logits, labels)
