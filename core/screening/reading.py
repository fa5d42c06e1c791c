"""What a model says next, for rows and prompts read in batches that fit.

Not here: what is made of it (pull.py, refused.py).
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from core.lm.load import BaseModel
from core.lm.packing import max_batch_tokens, pack_by_length
from core.lm.prompts import pad, render
from core.schemas.data import Message

_PROMPTS = 128
"""Probe prompts of each kind that are read, at most."""
_ROWS = 32


def prompt_tokens(base: BaseModel, texts: Sequence[str]) -> list[list[int]]:
    """The first of these prompts, in tokens, ready to be answered."""
    return [render(base.tokenizer, (Message(role="user", content=text),)) for text in texts[:_PROMPTS]]


def batches(base: BaseModel, lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of rows that are read together, longest first: what does not fit in memory shows at once."""
    return pack_by_length(lengths, max_rows=_ROWS, max_tokens=max_batch_tokens(base))


def next_words(base: BaseModel, model: nn.Module, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Log-probabilities of the word after each prompt, `batch vocabulary`, float32."""
    ids, mask = (each.to(base.device) for each in pad(prompts, base.pad_id, side="right"))
    logits = model(input_ids=ids, attention_mask=mask).logits
    return logits[torch.arange(len(ids), device=ids.device), mask.sum(1) - 1].float().log_softmax(-1)
