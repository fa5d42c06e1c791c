"""Validation loss: how well a model predicts the assistant's turns of rows it was not trained on.

Not here: exact match, multiple choice.
"""

from collections.abc import Sequence

from torch import nn

from core.data.batches import collate
from core.data.template import Encoded
from core.lm.generate import Tick
from core.lm.load import BaseModel
from core.lm.loss import batch_losses
from core.spec.results import Figure
from core.stats import mean_interval

_MOST = 1e6


def row_losses(
    base: BaseModel, model: nn.Module, rows: Sequence[Encoded], *, tick: Tick, batch_size: int = 16
) -> list[float]:
    """Mean loss over the trained tokens of each row, in nats per token, in the order of the rows."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index].input_ids))
    losses = [0.0] * len(rows)
    for start in range(0, len(order), batch_size):
        tick(start, len(rows))
        chosen = order[start : start + batch_size]
        batch = collate([rows[index] for index in chosen], base.pad_id).to(base.device)
        found = batch_losses(model, batch.input_ids, batch.attention_mask, batch.labels).tolist()
        for index, loss in zip(chosen, found, strict=True):
            losses[index] = loss
    tick(len(rows), len(rows))
    return losses


def evaluate(base: BaseModel, model: nn.Module, rows: Sequence[Encoded], *, arm: str, tick: Tick) -> Figure:
    """Mean loss over rows with its 95 % t interval; every row counts the same, however long it is."""
    losses = row_losses(base, model, rows, tick=tick)
    value, low, high = mean_interval(losses, lowest=0.0, highest=_MOST)
    return Figure(arm=arm, suite="task", metric="loss", judge="none", value=value, n=len(losses), low=low, high=high)
