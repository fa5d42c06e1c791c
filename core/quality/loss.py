"""Validation loss and perplexity: how well a model predicts the assistant's turns of validation rows.

Not here: exact match, ROUGE-L, multiple choice.
"""

from collections.abc import Sequence
from math import exp, log

from torch import nn

from core.data.batches import collate
from core.data.encoded import Encoded
from core.lm.load import BaseModel
from core.lm.loss import batch_losses
from core.lm.packing import max_batch_tokens, pack_by_length
from core.schemas.evaluation import Figure
from core.schemas.metrics import TASK
from core.schemas.progress import OnProgress
from core.stats import mean_interval

_MAX_LOSS = 1e6
MAX_PERPLEXITY = 1e12
"""Largest perplexity that is reported; a uniform guess has the size of the vocabulary."""


def row_losses(
    base: BaseModel, model: nn.Module, rows: Sequence[Encoded], *, on_progress: OnProgress, batch_size: int = 16
) -> list[float]:
    """Mean loss over the trained tokens of each row in nats per token, in the order of the rows."""
    losses = [0.0] * len(rows)
    done = 0
    for indices in pack_by_length(
        [len(row.input_ids) for row in rows],
        max_rows=base.limit_batch(batch_size, len(rows)),
        max_tokens=max_batch_tokens(base),
    ):
        on_progress(done, len(rows))
        batch = collate([rows[index] for index in indices], base.pad_id).to(base.device)
        values = batch_losses(model, batch.input_ids, batch.attention_mask, batch.labels).tolist()
        for index, loss in zip(indices, values, strict=True):
            losses[index] = loss
        done += len(indices)
    on_progress(len(rows), len(rows))
    return losses


def mean_loss(losses: Sequence[float], *, run: str) -> Figure:
    """Mean of the rows' losses in nats per token, with its 95 % t interval. All rows have the same weight."""
    value, low, high = mean_interval(losses, minimum=0.0, maximum=_MAX_LOSS)
    return Figure(run=run, suite=TASK, metric="loss", judge="none", value=value, n=len(losses), low=low, high=high)


def perplexity(loss: Figure) -> Figure:
    """Exponential of a mean loss and of the limits of its interval; 1 or more."""
    value, low, high = (exp(min(each, log(MAX_PERPLEXITY))) for each in (loss.value, loss.low, loss.high))
    return loss.model_copy(update={"metric": "perplexity", "value": value, "low": low, "high": high})
