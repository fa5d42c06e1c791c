"""The generation loop: a batch in which rows end and leave, and waiting rows join.

Not here: how rows are read and stepped (core.lm.decode), which token is chosen (core.lm.answers).
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.lm.answers import AnswerRow, Answers, Sampler
from core.lm.decode import Decoder, Rows
from core.lm.load import BaseModel

_CPU_ROWS, _GPU_ROWS = 128, 512
"""Maximum rows of a batch. On a CPU, more rows only make rows wider than they need to be; on a GPU, memory is
the limit for all but small models."""
_CPU_CACHE_BYTES = 1 << 30
"""Maximum size of a batch's keys and values without a GPU."""
_GPU_CACHE_SHARE = 0.4
"""Maximum size of a batch's keys and values on a GPU, as a share of the memory that the weights leave. It does not
depend on the memory that is free now: batches must be the same in every run, because other batches round differently.
The rest is for logits, and for rows that join, which are stored twice for a moment."""
_CPU_READ_TOKENS, _GPU_READ_TOKENS = 1024, 8192
"""Maximum tokens, padding included, of one pass over prompts: what fits in the caches of a CPU, or keeps a GPU busy."""
_PADDING_PARTS = 16
"""At most one token in 16 of a pass is padding; above that, another pass is cheaper."""
_LEAVE_AFTER = 8
"""Ended rows leave once they have cost an eighth of a step, which is about the cost of closing the gaps."""
_REFILL_BELOW = 0.75
"""Waiting rows join once this share of the batch is left: reading few prompts costs almost as much as reading many."""


@dataclass
class _Batch:
    """The rows in progress."""

    rows: list[AnswerRow]
    read: Rows
    tokens: Tensor
    """The chosen token of each row, which the model has not read yet: `batch`."""
    idle: int = 0
    """Steps of ended rows since rows last left."""

    def join(self, other: "_Batch") -> None:
        """Append the rows of another batch."""
        self.read.join(other.read)
        self.rows += other.rows
        self.tokens = torch.cat([self.tokens, other.tokens])

    def leave(self, stay: Sequence[int]) -> None:
        """Keep only the rows with these indices."""
        order = self.read.leave(stay)
        self.rows = [self.rows[place] for place in order]
        self.tokens = self.tokens[order]
        self.idle = 0


class Engine:
    """Answers rows in one batch, which waiting rows join when there is space."""

    def __init__(self, base: BaseModel, decoder: Decoder, sampler: Sampler, answers: Answers) -> None:
        self._base, self._decoder, self._sampler, self._answers = base, decoder, sampler, answers
        self._context, self._max_bytes = base.context, base.limit_batch(max_cache_bytes(base))
        cpu = base.device.type == "cpu"
        self._batch_size = _CPU_ROWS if cpu else _GPU_ROWS
        self._read_tokens = base.limit_batch(_CPU_READ_TOKENS if cpu else _GPU_READ_TOKENS)
        self._waiting: deque[AnswerRow] = deque()
        self._full = 0
        """Rows of the batch when rows last joined."""
        self._longest_prompt = 0

    def run(self, rows: Sequence[AnswerRow]) -> None:
        """Answer all rows."""
        heads = self._decoder.share([row.prompt for row in rows])
        for row, head in zip(rows, heads, strict=True):
            row.head = tuple(row.prompt[self._decoder.root :][:head])
            row.tail = len(row.prompt) - self._decoder.root - head
        self._waiting.extend(sorted(rows, key=lambda row: (len(row.prompt), row.head)))
        self._longest_prompt = max(len(row.prompt) for row in rows)
        self._batch_size = self._base.limit_batch(self._batch_size, len(rows))
        batch = self._update(None)
        while batch is not None:
            batch.tokens = self._sampler.choose(self._decoder.step(batch.read, batch.tokens), batch.rows)
            self._answers.add(batch.rows, batch.tokens.tolist())
            batch = self._update(batch)

    def _update(self, batch: _Batch | None) -> _Batch | None:
        """Let ended rows leave and waiting rows join. None if all rows are answered."""
        while True:
            batch = batch and self._drop_ended(batch)
            if batch is not None and len(batch.rows) > _REFILL_BELOW * self._full:
                return batch
            joining = self._take_waiting(batch.rows if batch is not None else [])
            if not joining:
                return batch
            batch = self._join(batch, joining)

    def _drop_ended(self, batch: _Batch) -> _Batch | None:
        """The batch without ended rows, if dropping them pays; None if all have ended.

        No row may be stepped beyond the context, not even an ended one.
        """
        stay = [place for place, row in enumerate(batch.rows) if not row.ended]
        if not stay:
            return None
        batch.idle += len(batch.rows) - len(stay)
        full = any(row.ended and len(row.prompt) + len(row.tokens) >= self._context for row in batch.rows)
        if full or batch.idle * _LEAVE_AFTER > len(stay):
            batch.leave(stay)
        return batch

    def _join(self, batch: _Batch | None, joining: Sequence[AnswerRow]) -> _Batch | None:
        """The batch with these rows, whose prompts are read here."""
        count = len(joining) + (len(batch.rows) if batch is not None else 0)
        for some in _split_passes(joining, self._read_tokens):
            part = self._read(some)
            if batch is not None:
                batch.join(part)
                continue
            batch = part
            # Longer prompts join later: with space for them at the front, nothing has to be copied then.
            fits = count * self._longest_prompt * self._decoder.slot_bytes <= self._max_bytes
            batch.read.reserve(count, self._longest_prompt if fits else 0)
        self._full = count
        return batch

    def _take_waiting(self, active: Sequence[AnswerRow]) -> list[AnswerRow]:
        """Waiting rows that fit in the batch beside the active ones."""
        taken: list[AnswerRow] = []
        longest = max((row.max_length for row in active), default=0)
        while self._waiting and len(active) + len(taken) < self._batch_size:
            longest, count = max(longest, self._waiting[0].max_length), len(active) + len(taken) + 1
            if count > 1 and count * longest * self._decoder.slot_bytes > self._max_bytes:
                break
            taken.append(self._waiting.popleft())
        return taken

    def _read(self, rows: list[AnswerRow]) -> _Batch:
        """Read the prompts of rows and choose their first tokens."""
        read, logits = self._decoder.read([row.prompt for row in rows], [len(row.head) for row in rows])
        for row in rows:
            self._sampler.draw(row)
        batch = _Batch(rows, read, self._sampler.choose(logits, rows))
        self._answers.add(batch.rows, batch.tokens.tolist())
        return batch


def _split_passes(rows: Sequence[AnswerRow], max_tokens: int) -> Iterator[list[AnswerRow]]:
    """Split rows into sets that are read in one pass each, with little padding after their heads."""
    some: list[AnswerRow] = []
    heads: set[tuple[int, ...]] = set()
    longest = total = 0
    for row in sorted(rows, key=lambda row: (row.tail, len(row.head), row.head)):
        reach, shared, count = max(longest, row.tail), {*heads, row.head}, len(some) + 1
        whole = count * reach + len(shared) * max(map(len, shared))
        padding = count * reach - total - row.tail
        if some and (whole > max_tokens or padding * _PADDING_PARTS > max_tokens):
            yield [*some]
            some.clear()
            reach, shared, total = row.tail, {row.head}, 0
        some.append(row)
        longest, heads, total = reach, shared, total + row.tail
    if some:
        yield some


def max_cache_bytes(base: BaseModel) -> int:
    """Maximum bytes for the keys and values of a batch."""
    if base.device.type != "cuda":
        return _CPU_CACHE_BYTES
    total = torch.cuda.get_device_properties(base.device).total_memory
    return int(_GPU_CACHE_SHARE * max(0, total - base.model.get_memory_footprint()))
