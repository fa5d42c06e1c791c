"""Puts rows of similar length into batches that fit in memory.

Not here: padding (core.data.batches, core.lm.prompts), the batches of an epoch (core.data.batches).
"""

from collections.abc import Iterator, Sequence

from core.lm.load import BaseModel

_MAX_LOGITS = 1 << 27
"""Logits of one forward pass: 512 MiB in float32."""


def max_batch_tokens(base: BaseModel) -> int:
    """Tokens of one batch, padding included, whose logits fit in memory. A larger vocabulary leaves fewer."""
    return base.limit_batch(max(1, _MAX_LOGITS // max(1, len(base.tokenizer))))


def pack_by_length(
    lengths: Sequence[int], *, max_rows: int, max_tokens: int, max_padding: float = 1.0
) -> Iterator[list[int]]:
    """Indices of each batch, longest rows first, so that a batch that does not fit in memory fails at once.

    `max_tokens` includes padding; a row with more tokens is a batch by itself. `max_padding` is the share of a batch's
    tokens that may be padding.
    """
    batch: list[int] = []
    total = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        total += lengths[index]
        padded = (len(batch) + 1) * lengths[batch[0]] if batch else 0
        if batch and (len(batch) == max_rows or padded > max_tokens or padded - total > max_padding * padded):
            yield [*batch]
            batch.clear()
            total = lengths[index]
        batch.append(index)
    if batch:
        yield batch
