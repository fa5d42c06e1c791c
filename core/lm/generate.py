"""Asks a model for answers, many at once: greedy, batched, sorted by length.

Not here: sampling, and what the answers mean (core.security).
"""

from collections.abc import Callable, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from core.lm.load import BaseModel
from core.lm.prompts import pad, render
from core.spec.data import Message

Tick = Callable[[int, int], None]
"""Called often with (answers done, answers in all); may raise to stop."""


class _Generates(Protocol):
    """What transformers' generative models and peft's wrappers of them share, which their types do not say."""

    def generate(self, **options: object) -> Tensor: ...


class _Heartbeat(StoppingCriteria):
    """Stops nothing: it lets the caller hear of every token step, so that long answers can be watched and interrupted.

    The answers of a batch grow together: after a third of the steps, a third of them counts as done.
    """

    def __init__(self, tick: Tick, *, done: int, batch: int, total: int, steps: int) -> None:
        self._tick, self._done, self._batch, self._total, self._steps = tick, done, batch, total, steps
        self._step = 0

    def __call__(self, input_ids: Tensor, _scores: Tensor, **_: object) -> Tensor:
        self._step += 1
        self._tick(self._done + self._batch * self._step // (self._steps + 1), self._total)
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def answer(
    base: BaseModel,
    model: nn.Module,
    conversations: Sequence[Sequence[Message]],
    *,
    max_new_tokens: int,
    tick: Tick,
) -> list[str]:
    """The answers of `model` (the base itself, or the base with an adapter), in the order of the conversations.

    A prompt that leaves no room for an answer in the model's context is cut on the left; an answer ends where the
    context does.
    """
    most = min(max_new_tokens, base.context - 1)
    prompts = [render(base.tokenizer, messages)[most - base.context :] for messages in conversations]
    tokens = continue_tokens(base, model, prompts, max_new_tokens=most, tick=tick)
    return [str(base.tokenizer.decode(row, skip_special_tokens=True)).strip() for row in tokens]


@torch.inference_mode()
def continue_tokens(
    base: BaseModel,
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    tick: Tick,
    batch_size: int = 64,
) -> list[list[int]]:
    """The tokens that follow each prompt, greedily, without padding; they end with the terminator if it was reached."""
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=base.pad_id,
        eos_token_id=base.stop_ids or None,
    )
    rows: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        ids, mask = pad([prompts[index] for index in chosen], base.pad_id, side="left")
        heartbeat = _Heartbeat(tick, done=start, batch=len(chosen), total=len(prompts), steps=max_new_tokens)
        output = cast(_Generates, model).generate(
            input_ids=ids.to(base.device),
            attention_mask=mask.to(base.device),
            generation_config=config,
            stopping_criteria=StoppingCriteriaList([heartbeat]),
        )
        for index, row in zip(chosen, output[:, ids.shape[1] :].tolist(), strict=True):
            ends = [place + 1 for place, token in enumerate(row) if token in base.stop_ids]
            rows[index] = row[: ends[0]] if ends else row
    tick(len(prompts), len(prompts))
    return rows
