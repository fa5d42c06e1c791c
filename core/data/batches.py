"""Batches of tokenized rows as tensors: padding, and counts of tokens.

Not here: which rows a batch has (core.data.order), how one row becomes tokens (core.data.template), the loop
(core.training).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from core.data.encoded import IGNORED, Encoded


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


def collate(encoded: Sequence[Encoded], pad_id: int) -> Batch:
    """At least one row, padded on the right to the longest: `batch seq`."""
    lengths = np.array([len(row.input_ids) for row in encoded])
    mask = np.arange(lengths.max()) < lengths[:, None]
    input_ids = np.full(mask.shape, pad_id, dtype=np.int64)
    input_ids[mask] = np.concatenate([row.input_ids for row in encoded])
    labels = np.full(mask.shape, IGNORED, dtype=np.int64)
    labels[mask] = np.concatenate([row.labels for row in encoded])
    return Batch(torch.from_numpy(input_ids), torch.from_numpy(mask.astype(np.int64)), torch.from_numpy(labels))
