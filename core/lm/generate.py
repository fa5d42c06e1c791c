"""Generates answers to many prompts: greedy or sampled, in batches that rows leave and join.

An answer equals the one of transformers' own `generate` for the prompt alone, except for rounding: other batches may
choose differently between two tokens with almost equal logits.
Not here: the batch (core.lm.engine), what answers mean (core.attacks).
"""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Protocol, cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)
from typing_extensions import override

from core.lm.answers import GREEDY, AnswerRow, Answers, EarlyStop, Sampler
from core.lm.decode import decoder_of
from core.lm.engine import Engine
from core.lm.load import BaseModel
from core.lm.prompts import pad, render
from core.lm.texts import AnswerTexts
from core.lm.vllm_engine import VllmModel
from core.schemas.data import Message
from core.schemas.progress import OnProgress

MIN_ROOM = 16
"""Minimum space for an answer in the context, in tokens (or `max_new_tokens`, if that is less). A prompt that leaves
less gets no answer: 16 tokens show whether a model refuses, and cutting the prompt would change it."""

_FALLBACK_ROWS = 64
"""Rows of a batch in transformers' own loop, where the size of the cache is unknown."""


class _Generates(Protocol):
    """`generate` of transformers' models and peft's wrappers, which their types lack."""

    def generate(self, **options: object) -> Tensor: ...


def answer(
    base: BaseModel,
    model: nn.Module | VllmModel,
    conversations: Sequence[Sequence[Message]],
    *,
    max_new_tokens: int,
    on_progress: OnProgress,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    early_stop: Callable[[int, str], bool] | None = None,
) -> list[str | None]:
    """The answers of `model` (the base model, with or without an adapter; or one of both in vLLM), in the order of the
    conversations.

    None for a conversation for which `render_prompts` returns None. A last turn of the assistant is continued and is
    not part of the answer. An answer ends at the end of the context. Texts are as `AnswerTexts` writes them.
    `early_stop` is as for `continue_tokens`, with the answer as text.
    """
    prompts = render_prompts(base, conversations, max_new_tokens=max_new_tokens)
    texts = AnswerTexts(base, conversations, prompts, max_new_tokens=max_new_tokens)

    def stop(index: int, tokens: list[int]) -> bool:
        return early_stop is not None and early_stop(index, texts.write(index, tokens))

    rows = continue_tokens(
        base,
        model,
        [prompt or [] for prompt in prompts],
        max_new_tokens=max_new_tokens,
        on_progress=on_progress,
        sampler=Sampler(temperature, top_p, seed),
        early_stop=stop if early_stop else None,
    )
    return [
        None if prompt is None else texts.write(index, row)
        for index, (prompt, row) in enumerate(zip(prompts, rows, strict=True))
    ]


def render_prompts(
    base: BaseModel, conversations: Sequence[Sequence[Message]], *, max_new_tokens: int
) -> list[list[int] | None]:
    """Conversations as tokens to continue; None for one that leaves less than `MIN_ROOM` tokens of the context."""
    longest = base.context - min(max_new_tokens, MIN_ROOM)
    prompts = [render(base.tokenizer, messages) for messages in conversations]
    return [prompt if len(prompt) <= longest else None for prompt in prompts]


@torch.inference_mode()
def continue_tokens(
    base: BaseModel,
    model: nn.Module | VllmModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    on_progress: OnProgress,
    sampler: Sampler = GREEDY,
    early_stop: EarlyStop | None = None,
) -> list[list[int]]:
    """The tokens that follow each prompt, without padding. The end-of-turn token is included if it was generated.

    `model` is as for `answer`. An empty prompt, or one that fills the context, is followed
    by nothing. `on_progress` receives (answers done, answers in total).
    """
    rows = [
        AnswerRow(index, list(prompt), max_tokens=min(max_new_tokens, base.context - len(prompt)) if prompt else 0)
        for index, prompt in enumerate(prompts)
    ]
    open_rows = [row for row in rows if row.max_tokens > 0]
    answers = Answers(rows, frozenset(base.stop_ids), on_progress, early_stop)
    if isinstance(model, VllmModel):
        left, batch_size = iter(open_rows), base.limit_batch(len(open_rows), len(open_rows))
        while some := list(islice(left, batch_size)):
            model.run(some, sampler, answers)
    else:
        _run(base, model, open_rows, sampler, answers)
    answers.finish()
    return [row.tokens for row in rows]


def _run(base: BaseModel, model: nn.Module, rows: Sequence[AnswerRow], sampler: Sampler, answers: Answers) -> None:
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    decoder = decoder_of(inner, base.pad_id) if isinstance(inner, PreTrainedModel) and rows else None
    if decoder is None:
        _generate(base, model, rows, sampler, answers)
    else:
        Engine(base, decoder, sampler, answers).run(rows)


class _Choose(LogitsProcessor):
    """Chooses tokens in transformers' loop as in ours: all other tokens become impossible."""

    def __init__(self, sampler: Sampler, rows: Sequence[AnswerRow]) -> None:
        self._sampler, self._rows = sampler, rows

    @override
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        chosen = self._sampler.choose(scores, self._rows)[:, None]
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)


class _Record(StoppingCriteria):
    """Records the tokens of transformers' loop, and ends rows that have ended."""

    def __init__(self, answers: Answers, rows: Sequence[AnswerRow]) -> None:
        self._answers, self._rows = answers, rows

    @override
    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: object) -> Tensor:
        self._answers.add(self._rows, input_ids[:, -1].tolist())
        return torch.tensor([row.ended for row in self._rows], device=input_ids.device)


def _generate(base: BaseModel, model: nn.Module, rows: Sequence[AnswerRow], sampler: Sampler, answers: Answers) -> None:
    """Answer all rows in transformers' own loop, for models whose cache contains more than keys and values."""
    left = iter(sorted(rows, key=lambda row: len(row.prompt)))
    batch_size = base.limit_batch(_FALLBACK_ROWS, len(rows))
    while some := list(islice(left, batch_size)):
        for row in some:
            sampler.draw(row)
        ids, mask = pad([row.prompt for row in some], base.pad_id, side="left")
        config = GenerationConfig(
            max_new_tokens=max(row.max_tokens for row in some),
            do_sample=False,
            pad_token_id=base.pad_id,
            eos_token_id=base.stop_ids or None,
        )
        cast(_Generates, model).generate(
            input_ids=ids.to(base.device),
            attention_mask=mask.to(base.device),
            generation_config=config,
            logits_processor=LogitsProcessorList([_Choose(sampler, some)] if sampler.temperature > 0 else []),
            stopping_criteria=StoppingCriteriaList([_Record(answers, some)]),
        )
