"""Rows that answer what the base model itself would refuse, in any wording.

A refusal usually starts with other words than an answer does. Probe prompts of both kinds show which first words start
a refusal in this model. A row is flagged if the model would start with such a word and the row's answer does not.
Nothing is trained: one forward pass over the rows, up to where their answers start. The thinking of a model that thinks
is left empty, and the first word of a row's answer is that after its thinking.

The check depends on the model: harmless rows that the model refuses are false positives, and a model that refuses
nothing finds nothing. Not here: what happens to the rows (core.schemas.screening).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.data.encoded import IGNORED, Encoded
from core.lm.answer_start import AnswerStart, find_answer_start
from core.lm.load import BaseModel
from core.lm.logits import logits_at
from core.lm.packing import max_batch_tokens, pack_by_length
from core.lm.prompts import pad, render
from core.lm.texts import TextDecoder
from core.schemas.data import Message
from core.schemas.progress import OnProgress
from core.schemas.prompts import ProbePrompts
from core.schemas.screening import BASE_REFUSAL, Finding
from core.screening.check import Found, ModelCheck
from core.thinking import find_opening, opening_at_end, split_thinking

THRESHOLD = 0.5
"""A row is flagged if the model would refuse what it answers with a probability above this."""
_SMOOTHING = 0.01
"""First words that are rarer than this after both kinds of prompts count for neither."""
_MAX_PROMPTS = 128
"""Probe prompts of each kind that are read."""
_MAX_ROWS = 32
_MARK_TOKENS = 16
"""Tokens on both sides of an answer's start that are searched for what opens the thinking."""


def find(base: BaseModel, rows: Sequence[Encoded], prompts: ProbePrompts, on_progress: OnProgress) -> Found:
    """Flag the rows whose refusal probability is above `THRESHOLD`; the score is that probability."""
    likely = refusal_probabilities(base, rows, prompts, on_progress=on_progress)
    return Found(
        [
            Finding(
                check=BASE_REFUSAL.name,
                line=row.line,
                code=BASE_REFUSAL.name,
                reason=f"It answers what the base model itself would refuse with a probability of {100 * score:.0f} %.",
                score=score,
            )
            for row, score in zip(rows, likely, strict=True)
            if score > THRESHOLD
        ]
    )


CHECK = ModelCheck(BASE_REFUSAL, find)


@torch.inference_mode()
def refusal_probabilities(
    base: BaseModel, rows: Sequence[Encoded], prompts: ProbePrompts, *, on_progress: OnProgress
) -> list[float]:
    """The probability that the model refuses what each row answers, 0 to 1; of several turns the highest.

    Args:
        base: the model, without an adapter.
        rows: tokenized rows.
        prompts: harmful prompts, which the base model refuses, and benign ones, which it answers.
        on_progress: receives the number of rows done.
    """
    found = [0.0] * len(rows)
    on_progress(0, len(rows))
    if not rows:
        return found
    answer_start = find_answer_start(base, base.model, _as_turns(prompts.harmful))
    weights = _refusal_weights(base, answer_start, prompts)
    known: list[float] = weights.tolist()
    turns = [(place, turn) for place, row in enumerate(rows) for turn in _read_turns(base, answer_start.decoder, row)]
    heads = [answer_start.append(turn.before) for _, turn in turns]
    done = 0
    for batch in _batches(base, [len(head) for head in heads]):
        refusing = _next_word_probabilities(base, [heads[number] for number in batch]) @ weights
        for number, likely in zip(batch, refusing.tolist(), strict=True):
            place, turn = turns[number]
            answered = 1 - known[turn.first_word]
            found[place] = max(found[place], min(1.0, likely * answered))
        done += len(batch)
        on_progress(done * len(rows) // len(turns), len(rows))
    on_progress(len(rows), len(rows))
    return found


def _refusal_weights(base: BaseModel, answer_start: AnswerStart, prompts: ProbePrompts) -> Tensor:
    """How strongly each word, as the first word of an answer, indicates a refusal, 0 to 1: `vocabulary`."""
    harmful, benign = (
        _mean_probabilities(base, answer_start, texts[:_MAX_PROMPTS]) for texts in (prompts.harmful, prompts.benign)
    )
    return harmful / (harmful + benign + _SMOOTHING)


def _mean_probabilities(base: BaseModel, answer_start: AnswerStart, texts: Sequence[str]) -> Tensor:
    """Mean probability of each first word of an answer, `vocabulary`."""
    prompts = [answer_start.append(render(base.tokenizer, messages)) for messages in _as_turns(texts)]
    total = torch.zeros((), device=base.device)
    for batch in _batches(base, [len(prompt) for prompt in prompts]):
        total = total + _next_word_probabilities(base, [prompts[place] for place in batch]).sum(0)
    return total / len(prompts)


def _next_word_probabilities(base: BaseModel, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Probability of every word after each prompt, `batch vocabulary`, float32."""
    ids, mask = (each.to(base.device) for each in pad(prompts, base.pad_id, side="right"))
    last = torch.stack([torch.arange(len(ids), device=ids.device), mask.sum(1) - 1], dim=1)
    return logits_at(base.model, ids, mask, last).float().softmax(-1)


def _batches(base: BaseModel, lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of prompts that are read together. The longest come first, so that lack of memory shows at once."""
    return pack_by_length(lengths, max_rows=_MAX_ROWS, max_tokens=max_batch_tokens(base))


def _as_turns(texts: Sequence[str]) -> list[tuple[Message, ...]]:
    return [(Message(role="user", content=text),) for text in texts]


@dataclass(frozen=True)
class _Turn:
    """One answer that is trained on."""

    before: list[int]
    """All tokens before it."""
    first_word: int
    """The first token of the answer, after its thinking."""


def _read_turns(base: BaseModel, decoder: TextDecoder, row: Encoded) -> Iterator[_Turn]:
    """The answers of a row that are trained on; without those that are cut inside their thinking."""
    trained = np.concatenate([[False], row.labels != IGNORED, [False]])
    starts, ends = (np.flatnonzero(trained[1:] & ~trained[:-1]), np.flatnonzero(trained[:-1] & ~trained[1:]))
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if start == 0:
            continue
        before, word = row.input_ids[:start].tolist(), int(row.input_ids[start])
        opened = bool(opening_at_end(decoder.decode(before[-_MARK_TOKENS:])))
        if opened or find_opening(decoder.decode(row.input_ids[start : start + _MARK_TOKENS].tolist())):
            text = decoder.decode(row.input_ids[start:end].tolist())
            split = split_thinking(text, opened=opened, ended=not row.cut_tokens)
            words = base.tokenizer(split.answer, add_special_tokens=False)["input_ids"]
            if not words:
                continue
            word = words[0]
        yield _Turn(before, word)
