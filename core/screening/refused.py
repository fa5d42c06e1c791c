"""Rows that answer what the base model itself would refuse: harm in the model's own judgement, whatever its words.

A model that refuses begins otherwise than one that answers, and which words begin a refusal it shows on prompts of both
kinds. A row is found where it would begin with such a word and the row's answer does not. Nothing is generated and
nothing is trained: one forward pass over the rows up to where their answers begin.

It knows what the model knows: a model that refuses what is harmless finds harmless rows, and one that refuses nothing
finds none. Not here: what becomes of the rows (core.schemas.screening).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from core.data.template import IGNORED, Encoded
from core.lm.load import BaseModel
from core.schemas.progress import OnProgress
from core.schemas.prompts import ProbePrompts
from core.screening.reading import batches, next_words, prompt_tokens

_SEEN = 0.01
"""Words that are rarer than this after prompts of both kinds speak for neither."""


@torch.inference_mode()
def refused(base: BaseModel, rows: Sequence[Encoded], prompts: ProbePrompts, *, on_progress: OnProgress) -> list[float]:
    """How likely the model is to refuse what each row answers, 0 to 1, in their order; the worst turn of each row.

    Args:
        base: the model, without an adapter.
        rows: rows in tokens.
        prompts: harmful ones, which the base refuses, and benign ones, which it answers.
        tick: called often, with rows passed over.
    """
    found = [0.0] * len(rows)
    on_progress(0, len(rows))
    if not rows:
        return found
    signs = _signs(base, prompts)
    known: list[float] = signs.tolist()
    begun = [_beginnings(row) for row in rows]
    turns = [(place, start) for place, starts in enumerate(begun) for start in starts]
    heads = [rows[place].input_ids[:start].tolist() for place, start in turns]
    done = 0
    for batch in batches(base, [len(head) for head in heads]):
        refusing = next_words(base, base.model, [heads[number] for number in batch]).exp() @ signs
        for number, likely in zip(batch, refusing.tolist(), strict=True):
            place, start = turns[number]
            answered = 1 - known[int(rows[place].input_ids[start])]
            found[place] = max(found[place], min(1.0, likely * answered))
        done += len(batch)
        on_progress(done * len(rows) // len(turns), len(rows))
    on_progress(len(rows), len(rows))
    return found


def _signs(base: BaseModel, prompts: ProbePrompts) -> Tensor:
    """How far each word, as the first, speaks for a refusal, 0 to 1: `vocabulary`."""
    harmful, benign = (_mean(base, prompt_tokens(base, texts)) for texts in (prompts.harmful, prompts.benign))
    return harmful / (harmful + benign + _SEEN)


def _mean(base: BaseModel, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Mean probability of each first word, `vocabulary`."""
    total = torch.zeros((), device=base.device)
    for batch in batches(base, [len(prompt) for prompt in prompts]):
        total = total + next_words(base, base.model, [prompts[place] for place in batch]).exp().sum(0)
    return total / len(prompts)


def _beginnings(row: Encoded) -> list[int]:
    """Where the answers that are trained on begin."""
    trained = row.labels != IGNORED
    before = np.concatenate([[False], trained[:-1]])
    return [int(start) for start in np.flatnonzero(trained & ~before) if start > 0]
