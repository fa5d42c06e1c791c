"""From tokenized rows to batches: the held-out rows, the order of an epoch, padding, and counts of rows and tokens.

Covers: everything between the dataset and the training loop; seeds decide all of it. Not here: how one row becomes
tokens (core.data.template), the loop (core.training).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from core.data.encoded import IGNORED, Encoded
from core.errors import InvalidDataset

_POOL_BATCHES = 50

Row = TypeVar("Row")


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows padded on the right to the longest of them."""

    input_ids: Tensor
    """Token ids, int64, `batch seq`."""
    attention_mask: Tensor
    """1 for tokens, 0 for padding, int64, `batch seq`."""
    labels: Tensor
    """Token ids where they are trained on and `IGNORED` elsewhere, int64, `batch seq`; not shifted."""

    @property
    def trained_tokens(self) -> int:
        """Tokens that the loss is a mean of: those with a label that another token stands before."""
        return int((self.labels[:, 1:] != IGNORED).sum())

    def to(self, device: torch.device) -> Self:
        """The same batch on `device`."""
        return type(self)(self.input_ids.to(device), self.attention_mask.to(device), self.labels.to(device))


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


def collate(encoded: Sequence[Encoded], pad_id: int) -> Batch:
    """At least one row, padded on the right to the longest: `batch seq`."""
    lengths = np.array([len(row.input_ids) for row in encoded])
    mask = np.arange(lengths.max()) < lengths[:, None]
    input_ids = np.full(mask.shape, pad_id, dtype=np.int64)
    input_ids[mask] = np.concatenate([row.input_ids for row in encoded])
    labels = np.full(mask.shape, IGNORED, dtype=np.int64)
    labels[mask] = np.concatenate([row.labels for row in encoded])
    return Batch(torch.from_numpy(input_ids), torch.from_numpy(mask.astype(np.int64)), torch.from_numpy(labels))
