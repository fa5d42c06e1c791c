"""Which rows are held out, and the order in which the others are trained on; seeds decide both. Micro-batches.

It needs no torch, so that a job can be estimated with the batches that it will have. Not here: batches as tensors
(core.data.batches), how one row becomes tokens (core.data.template).
"""

from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import TypeVar

import numpy as np

from core.data.encoded import Encoded
from core.errors import InvalidDataset

_POOL_BATCHES = 50

Row = TypeVar("Row")


def split(rows: Sequence[Row], *, share: float, seed: int, cap: int) -> tuple[list[Row], list[Row]]:
    """Hold out about `share` of `rows`, at most `cap` and at least one: (kept, held out), both in the order given.

    Raises:
        InvalidDataset: code `too_few_rows`; there are fewer than two rows.
    """
    if len(rows) < 2:
        raise InvalidDataset(
            f"The dataset has {len(rows)} row(s), and one must be held out for validation: "
            "add rows, or name a validation_dataset.",
            code="too_few_rows",
        )
    number = min(max(1, round(share * len(rows))), cap, len(rows) - 1)
    held = {int(index) for index in np.random.default_rng(seed).permutation(len(rows))[:number]}
    return (
        [row for index, row in enumerate(rows) if index not in held],
        [row for index, row in enumerate(rows) if index in held],
    )


def epoch_batches(
    n_rows: int, batch_size: int, *, seed: int, epoch: int, lengths: Sequence[int] | None = None
) -> list[tuple[int, ...]]:
    """Row indices of each batch of one epoch: every row once, shuffled by `(seed, epoch)`; one batch may be smaller.

    With the rows' `lengths`, a batch holds rows of like length. Rows are sorted within pools of many batches only, at
    least four pools an epoch, so that the same rows do not meet in every epoch; then the batches are shuffled.
    """
    chance = np.random.default_rng((seed, epoch))
    order = [int(index) for index in chance.permutation(n_rows)]
    if lengths is None:
        return [tuple(order[start : start + batch_size]) for start in range(0, n_rows, batch_size)]
    pool = batch_size * min(_POOL_BATCHES, max(1, n_rows // (4 * batch_size)))
    found: list[tuple[int, ...]] = []
    for start in range(0, n_rows, pool):
        alike = sorted(order[start : start + pool], key=lengths.__getitem__)
        found += [tuple(alike[first : first + batch_size]) for first in range(0, len(alike), batch_size)]
    return [found[int(index)] for index in chance.permutation(len(found))]


def batches_from(
    step: int, rows: Sequence[Encoded], batch_size: int, *, seed: int, by_length: bool
) -> Iterator[tuple[Encoded, ...]]:
    """The rows of each batch, epoch after epoch without end, beginning behind the first `step` batches."""
    lengths = [len(row.input_ids) for row in rows] if by_length else None
    epoch, done = divmod(step, -(-len(rows) // batch_size))
    for number in count(epoch):
        batches = epoch_batches(len(rows), batch_size, seed=seed, epoch=number, lengths=lengths)
        for indices in islice(batches, done, None):
            yield tuple(rows[index] for index in indices)
        done = 0


def micro_batches(chosen: Sequence[Encoded], size: int | None) -> list[Sequence[Encoded]]:
    """The rows of each forward pass of a step; `size` is None for one pass."""
    size = size or len(chosen)
    return [chosen[first : first + size] for first in range(0, len(chosen), size)]


def padded_tokens(rows: Sequence[Encoded]) -> int:
    """Number of tokens of these rows in one batch, with padding."""
    return len(rows) * max((len(row.input_ids) for row in rows), default=0)
