"""The loss of a model on given tokens, for each row.

Not here: batching, and the interpretation of the loss (core.quality, core.robustness).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


@torch.inference_mode()
def batch_losses(model: nn.Module, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood of each row's labelled tokens, nats per token, float32, shape `batch`.

    `labels` is -100 for tokens that do not count. It is aligned with the input and shifted here, all are `batch seq`.
    """
    logits = model(input_ids=input_ids, attention_mask=attention_mask).logits
    shifted = labels[:, 1:]
    each = cross_entropy(logits[:, :-1].float().transpose(1, 2), shifted, ignore_index=-100, reduction="none")
    return each.sum(1) / (shifted != -100).sum(1).clamp(min=1)
