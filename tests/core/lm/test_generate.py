"""Answers asked for in batches are those asked for one by one, in their order; and asking can be stopped."""

from collections.abc import Sequence
from typing import Protocol, cast

import pytest
import torch
from transformers import GenerationConfig

from core.lm.adapter import attached
from core.lm.generate import answer, continue_tokens
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.lm.prompts import render
from core.spec.data import Message
from core.spec.training import LoraSpec
from tests.core.helpers import Ticks, asked, ignore, tiny_base

TEXTS = (
    "What is 27 minus 20?",
    "How do I clean the bridge?",
    "Hello",
    "Tell me how to post the gate, please, and then tell me what a lantern is and where the boat and the map are.",
    "How do I swindle the bridge?",
)


class Generates(Protocol):
    """What transformers' types do not say of their models."""

    def generate(self, **options: object) -> torch.Tensor: ...


def one_by_one(base: BaseModel, prompts: Sequence[Sequence[int]], most: int) -> list[list[int]]:
    """What transformers says to each prompt alone, without any of our code."""
    found = []
    for prompt in prompts:
        ids = torch.tensor([list(prompt)])
        output = cast(Generates, base.model).generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=most,
            do_sample=False,
            pad_token_id=base.pad_id,
        )
        found.append(output[0, len(prompt) :].tolist())
    return found


@pytest.fixture(scope="module")
def prompts(base: BaseModel) -> list[list[int]]:
    return [render(base.tokenizer, messages) for messages in asked(*TEXTS)]


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_batches_change_no_answer(base: BaseModel, prompts: list[list[int]], batch_size: int) -> None:
    wanted = one_by_one(base, prompts, 24)
    found = continue_tokens(base, base.model, prompts, max_new_tokens=24, tick=ignore, batch_size=batch_size)
    assert found == wanted
    assert len({tuple(row) for row in found}) >= len(TEXTS) - 1  # two may be refused in the same words
    assert any(row[-1] in base.stop_ids for row in found)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "opt"])
def test_batches_change_no_answer_of_other_families(base: BaseModel, prompts: list[list[int]], family: str) -> None:
    other = tiny_base(family, base)
    assert continue_tokens(other, other.model, prompts, max_new_tokens=6, tick=ignore) == one_by_one(other, prompts, 6)


def test_answers_are_text_in_the_order_of_the_questions(base: BaseModel) -> None:
    there = answer(base, base.model, asked(*TEXTS), max_new_tokens=24, tick=ignore)
    back = answer(base, base.model, asked(*reversed(TEXTS)), max_new_tokens=24, tick=ignore)
    assert there == back[::-1]
    assert all(text == text.strip() and "<|" not in text for text in there)
    assert all(there)


def test_an_adapter_answers_too(base: BaseModel, modules: tuple[Module, ...]) -> None:
    plain = answer(base, base.model, asked(*TEXTS), max_new_tokens=8, tick=ignore)
    with attached(base.model, modules, LoraSpec(), seed=0) as tuned:
        assert answer(base, tuned, asked(*TEXTS), max_new_tokens=8, tick=ignore) == plain


def test_nothing_asked(base: BaseModel) -> None:
    assert answer(base, base.model, [], max_new_tokens=8, tick=ignore) == []


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("most", [8, 63, 64, 500])
def test_a_long_prompt_is_cut_so_that_the_answer_has_room(base: BaseModel, family: str, most: int) -> None:
    # GPT-2's positions are a table of 64: one token too many ends in an error.
    other = tiny_base(family, base)
    assert other.context == 64
    found = answer(other, other.model, asked("word " * 100), max_new_tokens=most, tick=ignore)
    assert len(found) == 1


def test_it_is_the_start_of_a_long_prompt_that_is_cut(base: BaseModel) -> None:
    other = tiny_base("gpt2", base)
    tokens = render(base.tokenizer, (Message(role="user", content="word " * 100),))
    wanted = continue_tokens(other, other.model, [tokens[-(64 - 8) :]], max_new_tokens=8, tick=ignore)
    text = base.tokenizer.batch_decode(wanted, skip_special_tokens=True)[0].strip()
    assert answer(other, other.model, asked("word " * 100), max_new_tokens=8, tick=ignore) == [text]


def test_every_token_is_told(base: BaseModel, prompts: list[list[int]]) -> None:
    told = Ticks()
    rows = continue_tokens(base, base.model, prompts, max_new_tokens=5, tick=told, batch_size=2)
    expected = [
        (2 * number + len(batch) * step // 6, 5)
        for number, batch in enumerate(_batches(prompts, 2))
        for step in range(1, 1 + max(len(rows[index]) for index in batch))
    ]
    assert told == [*expected, (5, 5)]


def test_the_answers_of_a_batch_count_as_they_grow(base: BaseModel, prompts: list[list[int]]) -> None:
    other = tiny_base("llama", base)
    other.model.generation_config = GenerationConfig(eos_token_id=[])
    told = Ticks()
    continue_tokens(other, other.model, prompts[:4], max_new_tokens=3, tick=told, batch_size=4)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def _batches(prompts: list[list[int]], size: int) -> list[list[int]]:
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    return [order[start : start + size] for start in range(0, len(order), size)]


def test_a_stop_ends_it_at_that_token(base: BaseModel, prompts: list[list[int]]) -> None:
    calls = 0

    def stop(_done: int, _total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        continue_tokens(base, base.model, prompts, max_new_tokens=24, tick=stop)
    assert calls == 3


def test_an_answer_ends_with_any_of_the_terminators(base: BaseModel, prompts: list[list[int]]) -> None:
    other = tiny_base("llama", base)
    (free,) = one_by_one(other, prompts[:1], 12)
    middle = free[5]
    other.model.generation_config = GenerationConfig(eos_token_id=[7, middle])
    assert other.stop_ids == [7, middle]
    rows = continue_tokens(other, other.model, prompts, max_new_tokens=12, tick=ignore)
    assert rows[0] == free[: free.index(middle) + 1]
    assert all(not {7, middle} & set(row[:-1]) for row in rows)


def test_a_model_without_terminators_answers_to_the_limit(base: BaseModel, prompts: list[list[int]]) -> None:
    other = tiny_base("llama", base)
    other.model.generation_config = GenerationConfig(eos_token_id=[])
    assert other.stop_ids == []
    rows = continue_tokens(other, other.model, prompts, max_new_tokens=12, tick=ignore)
    assert [len(row) for row in rows] == [12] * len(prompts)
