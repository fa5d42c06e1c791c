"""What the base model predicts on safety rows, kept before training so that the loss can be held to it.

Covers: the predictions, and the KL divergence from them. Without the base model at hand during training, the
divergence costs one pass of the tuned model and works with full fine-tuning too. Not here: which rows these are
(core.safeguards.safety_rows), the loss (core.safeguards.kl_to_base).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div

from core.data.batches import Batch, collate
from core.data.encoded import Encoded
from core.lm.load import BaseModel
from core.lm.logits import logits_at
from core.lm.loss import find_labels
from core.lm.packing import max_batch_tokens, pack_by_length

KEPT = 256
"""How many of the likeliest tokens are kept at each position; all others count as one."""
_ROWS = 16


@dataclass(frozen=True, eq=False)
class Predicted:
    """A row with the base model's predictions at the positions that a label follows."""

    row: Encoded
    tokens: Tensor
    """The likeliest tokens, int64, `positions kept`."""
    log_probabilities: Tensor
    """Those of these tokens, and last of all others together, float32, `positions kept+1`."""


@torch.no_grad()  # not inference_mode: the loss needs these tensors in its backward pass
def predict(base: BaseModel, rows: Sequence[Encoded]) -> tuple[Predicted, ...]:
    """The rows with the base model's predictions, on the CPU. Nothing may be attached to the base model.

    Rows are batched in a way that depends on them alone, so a run that resumes gets the same numbers.
    """
    found: dict[int, Predicted] = {}
    lengths = [len(row.input_ids) for row in rows]
    limit = base.limit_batch(_ROWS, len(rows))
    for indices in pack_by_length(lengths, max_rows=limit, max_tokens=max_batch_tokens(base)):
        batch = collate([rows[index] for index in indices], base.pad_id).to(base.device)
        logits, places = _logits(base.model, batch)
        tokens = logits.topk(min(KEPT, logits.shape[1] - 1)).indices
        kept = _group(logits, tokens)
        for place, index in enumerate(indices):
            own = places == place
            found[index] = Predicted(rows[index], tokens[own].cpu(), kept[own].cpu())
    return tuple(found[index] for index in range(len(rows)))


def kl_from_predictions(model: nn.Module, chosen: Sequence[Predicted], pad_id: int) -> Tensor:
    """KL(base || tuned), the mean over the positions of these rows, nats. Without the differences among the tokens that
    are not kept, so a lower bound, and zero at the base model."""
    device = next(model.parameters()).device
    logits, _ = _logits(model, collate([each.row for each in chosen], pad_id).to(device))
    tokens = torch.cat([each.tokens for each in chosen]).to(device)
    reference = torch.cat([each.log_probabilities for each in chosen]).to(device)
    return kl_div(_group(logits, tokens), reference, log_target=True, reduction="batchmean")


def _logits(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits of the token after each position that a label follows, float32, and the row of each position."""
    positions, _ = find_labels(batch.labels)
    return logits_at(model, batch.input_ids, batch.attention_mask, positions).float(), positions[:, 0]


def _group(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probabilities of these tokens, and last of all others together: `positions kept+1`."""
    others = logits.scatter(1, tokens, -torch.inf).logsumexp(dim=1, keepdim=True)
    return torch.cat([logits.gather(1, tokens), others], dim=1) - logits.logsumexp(dim=1, keepdim=True)
