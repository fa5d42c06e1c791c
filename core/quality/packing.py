"""Rows of like length put together into batches that fit in memory.

Not here: padding (core.data.batches, core.lm.prompts).
"""

from collections.abc import Iterator, Sequence

from core.lm.load import BaseModel

_LOGITS = 1 << 27
"""Logits of one forward pass, 512 MiB as float32; a loss takes some copies of them."""


def room(base: BaseModel) -> int:
    """Tokens of one batch, padding included, whose logits fit in memory: fewer for a larger vocabulary."""
    return max(1, _LOGITS // max(1, len(base.tokenizer)))


def packed(lengths: Sequence[int], *, rows: int, tokens: int) -> Iterator[list[int]]:
    """Indices of each batch, shortest rows first: at most `rows`, and with padding at most `tokens` tokens unless a
    single row has more."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) == rows or (len(batch) + 1) * lengths[index] > tokens):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
