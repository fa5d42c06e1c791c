"""Rows in tokens, and which of their tokens are trained on.

Not here: how a conversation becomes tokens (core.data.template), batches (core.data.batches).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

IGNORED = -100
"""Label of a token that is not trained on; torch's cross-entropy skips it."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """One row in tokens."""

    input_ids: NDArray[np.int32]
    """Token ids, `seq`; at most `max_length` of them."""
    labels: NDArray[np.int32]
    """The same ids where they are trained on and `IGNORED` elsewhere, `seq`; not shifted."""
    line: int
    """Line of the file on which the row begins; 0 if it is in no file."""
    cut_tokens: int = 0
    """Number of tokens beyond `max_length`, which are cut off."""
    cut_trained_tokens: int = 0
    """Number of those that would have been trained on."""
    own_ending: bool = False
    """An answer of the row contained the token that ends turns at its end; it is trained on once."""
    inline_thinking: bool = False
    """The chat template has no place for the row's thinking, so it is trained on in the answer, between tags."""

    @classmethod
    def cut(
        cls,
        ids: Sequence[int],
        labels: Sequence[int],
        *,
        max_length: int,
        line: int,
        own_ending: bool = False,
        inline_thinking: bool = False,
    ) -> Self:
        """The row with these tokens and labels, cut at `max_length`."""
        return cls(
            np.array(ids[:max_length], dtype=np.int32),
            np.array(labels[:max_length], dtype=np.int32),
            line=line,
            cut_tokens=max(0, len(ids) - max_length),
            cut_trained_tokens=sum(label != IGNORED for label in labels[max_length:]),
            own_ending=own_ending,
            inline_thinking=inline_thinking,
        )

    def first_trained(self, count: int) -> Self:
        """The row up to its trained token number `count`; the same row if it has no more than these."""
        places = np.flatnonzero(self.labels != IGNORED)
        if len(places) <= count:
            return self
        end = int(places[count - 1]) + 1
        return replace(self, input_ids=self.input_ids[:end], labels=self.labels[:end])

    @property
    def trained_tokens(self) -> int:
        """Number of tokens with a label. 0 if the row was cut before its first trained token."""
        return int(np.count_nonzero(self.labels != IGNORED))


@dataclass(frozen=True, eq=False)
class EncodedDataset:
    """Rows that can be trained on, and the number of the others."""

    rows: tuple[Encoded, ...]
    """In the order of the file; each has a trained token at least."""
    dropped: int
    """Rows left out: their prompt alone fills `max_length`."""
