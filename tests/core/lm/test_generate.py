"""Answers asked for in batches are those asked for one by one, in their order; and asking can be stopped.

Covers: what transformers' own loop says, on every family; sampling; rows that end, leave and join; what is read once.
Not here: how fast it is (research.bench.generation).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import takewhile
from random import Random
from typing import Protocol, cast

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from core.lm import cache, decode, engine, generate
from core.lm.adapter import attached
from core.lm.answers import Sampler, sample
from core.lm.decode import decoder_of
from core.lm.generate import MIN_ROOM, answer, continue_tokens, render_prompts
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.lm.prompts import render
from core.schemas.data import Message
from core.schemas.training import LoraSpec
from tests.core.helpers import FAMILIES, VOCABULARY, ProgressLog, ignore, tiny, tiny_base, user_turns

TEXTS = (
    "What is 27 minus 20?",
    "How do I clean the bridge?",
    "Hello",
    "Tell me how to post the gate, please, and then tell me what a lantern is and where the boat and the map are.",
    "How do I swindle the bridge?",
)
SYSTEM = "You are kind, and you answer in short words."
RECURRENT: dict[str, dict[str, object]] = {
    "lfm2": {"intermediate_size": 32, "num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]},
    "mamba": {"state_size": 8},
}


class Generates(Protocol):
    """What transformers' types do not say of their models."""

    def generate(self, **options: object) -> Tensor: ...


def one_by_one(
    base: BaseModel, prompts: Sequence[Sequence[int]], most: int, model: nn.Module | None = None
) -> list[list[int]]:
    """What transformers says to each prompt alone, without any of our code."""
    found = []
    for prompt in prompts:
        ids = torch.tensor([list(prompt)])
        output = cast(Generates, model or base.model).generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=most,
            do_sample=False,
            pad_token_id=base.pad_id,
        )
        found.append(output[0, len(prompt) :].tolist())
    return found


@dataclass
class Passes:
    """What a model was made to read, pass by pass."""

    shapes: list[tuple[int, int]] = field(default_factory=list)
    """Rows and tokens."""

    @property
    def read(self) -> int:
        """Tokens in passes of more than one token a row."""
        return sum(rows * width for rows, width in self.shapes if width > 1)

    @property
    def stepped(self) -> list[int]:
        """Rows in passes of one token each."""
        return [rows for rows, width in self.shapes if width == 1]


@contextmanager
def watched(model: nn.Module) -> Iterator[Passes]:
    """Everything that the model reads, but for what it is tried out with."""
    passes = Passes()
    trial = {token for row in decode._TRIAL_PROMPTS for token in row}

    def note(_model: nn.Module, _args: object, kwargs: dict[str, Tensor]) -> None:
        ids = kwargs["input_ids"]
        rows, width = ids.shape
        if rows > len(decode._TRIAL_PROMPTS) or not set(ids.flatten().tolist()) <= trial | {0}:
            passes.shapes.append((rows, width))

    handle = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield passes
    finally:
        handle.remove()


def recurrent(family: str, base: BaseModel) -> BaseModel:
    """A tiny model that keeps more than keys and values."""
    options = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "initializer_range": 0.1,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 4,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **options | RECURRENT[family]))
    assert isinstance(model, PreTrainedModel)
    return BaseModel(model.requires_grad_(False).eval(), base.tokenizer, base.identity, base.folder)


def endless(base: BaseModel) -> BaseModel:
    """A tiny model that never ends an answer."""
    other = tiny_base("llama", base)
    other.model.generation_config = GenerationConfig(eos_token_id=[])
    return other


LimitRows = Callable[[int], None]


@pytest.fixture
def limit_rows(monkeypatch: pytest.MonkeyPatch) -> LimitRows:
    """Sets the maximum rows of a batch."""

    def limit(rows: int) -> None:
        monkeypatch.setattr(engine, "_CPU_ROWS", rows)
        monkeypatch.setattr(generate, "_FALLBACK_ROWS", rows)

    return limit


@pytest.fixture(scope="module")
def prompts(base: BaseModel) -> list[list[int]]:
    return [render(base.tokenizer, messages) for messages in user_turns(*TEXTS)]


@pytest.fixture(scope="module")
def alike(base: BaseModel) -> list[list[int]]:
    """Prompts that begin alike, two of them the same."""
    system = Message(role="system", content=SYSTEM)
    return [render(base.tokenizer, (system, *messages)) for messages in user_turns(*TEXTS[:3], TEXTS[4], TEXTS[4])]


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_batches_change_no_answer(
    base: BaseModel, prompts: list[list[int]], limit_rows: LimitRows, batch_size: int
) -> None:
    limit_rows(batch_size)
    wanted = one_by_one(base, prompts, 24)
    found = continue_tokens(base, base.model, prompts, max_new_tokens=24, on_progress=ignore)
    assert found == wanted
    assert len({tuple(row) for row in found}) >= len(TEXTS) - 1  # two may be refused in the same words
    assert any(row[-1] in base.stop_ids for row in found)


@pytest.mark.parametrize("batch_size", [2, 64])
@pytest.mark.parametrize("family", FAMILIES)
def test_batches_change_no_answer_of_other_families(
    base: BaseModel, alike: list[list[int]], limit_rows: LimitRows, family: str, batch_size: int
) -> None:
    limit_rows(batch_size)
    other = tiny_base(family, base)
    with torch.inference_mode():
        assert decoder_of(other.model, other.pad_id) is not None
    found = continue_tokens(other, other.model, alike, max_new_tokens=20, on_progress=ignore)
    assert found == one_by_one(other, alike, 20)


@pytest.mark.parametrize("batch_size", [2, 64])
@pytest.mark.parametrize("family", RECURRENT)
def test_what_keeps_more_than_keys_and_values_is_asked_by_transformers(
    base: BaseModel, alike: list[list[int]], limit_rows: LimitRows, family: str, batch_size: int
) -> None:
    limit_rows(batch_size)
    other = recurrent(family, base)
    with torch.inference_mode():
        assert decoder_of(other.model, other.pad_id) is None
    told = ProgressLog()
    found = continue_tokens(other, other.model, alike, max_new_tokens=20, on_progress=told)
    assert found == one_by_one(other, alike, 20)
    check_ticks(told, len(alike))
    again: list[list[list[int]]] = []
    for size in (1, batch_size):
        limit_rows(size)
        sampler = Sampler(1.0, seed=3)
        again.append(continue_tokens(other, other.model, alike, max_new_tokens=9, on_progress=ignore, sampler=sampler))
    assert again[0] == again[1] != [row[:9] for row in found]
    ended = continue_tokens(
        other, other.model, alike, max_new_tokens=20, on_progress=ignore, early_stop=lambda *_: True
    )
    assert [len(row) for row in ended] == [min(16, len(row)) for row in found]


def test_a_model_that_fails_its_trial_is_asked_by_transformers(
    base: BaseModel, alike: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tiny_base("llama", base)
    wanted = one_by_one(other, alike, 12)
    for outcome in (False, RuntimeError("shapes do not fit")):

        def tried(*_: object, outcome: bool | RuntimeError = outcome) -> bool:
            if isinstance(outcome, RuntimeError):
                raise outcome
            return outcome

        monkeypatch.setattr(decode.Decoder, "_passes_trial", tried)
        assert decoder_of(other.model, other.pad_id) is None
        assert continue_tokens(other, other.model, alike, max_new_tokens=12, on_progress=ignore) == wanted


def test_the_trial_sees_a_model_that_places_tokens_by_their_slot(base: BaseModel, alike: list[list[int]]) -> None:
    other = tiny_base("llama", base)
    wanted = one_by_one(other, alike, 12)
    plain = other.model.forward

    def forward(position_ids: Tensor | None = None, past_key_values: object = None, **options: object) -> object:
        start = past_key_values.get_seq_length() if isinstance(past_key_values, decode.DynamicCache) else 0
        if position_ids is not None and start and position_ids.shape[1] > 1:  # as if it had a mind of its own
            position_ids = start + torch.arange(position_ids.shape[1])[None]
        return plain(position_ids=position_ids, past_key_values=past_key_values, **options)

    other.model.forward = forward
    assert continue_tokens(other, other.model, alike, max_new_tokens=12, on_progress=ignore) == wanted


def test_answers_are_text_in_the_order_of_the_questions(base: BaseModel) -> None:
    there = answer(base, base.model, user_turns(*TEXTS), max_new_tokens=24, on_progress=ignore)
    back = answer(base, base.model, user_turns(*reversed(TEXTS)), max_new_tokens=24, on_progress=ignore)
    assert there == back[::-1]
    assert all(text is not None and text == text.strip() and "<|" not in text for text in there)
    assert all(there)


def test_a_begun_answer_is_gone_on_with(base: BaseModel) -> None:
    (question,) = user_turns(TEXTS[1])
    (whole,) = answer(base, base.model, [question], max_new_tokens=40, on_progress=ignore)
    assert whole is not None
    begun = " ".join(whole.split()[:3])
    (rest,) = answer(
        base, base.model, [(*question, Message(role="assistant", content=begun))], max_new_tokens=40, on_progress=ignore
    )
    assert f"{begun} {rest}" == whole


@pytest.mark.parametrize("trained", [False, True])
def test_an_adapter_answers_too(
    base: BaseModel, modules: tuple[Module, ...], prompts: list[list[int]], *, trained: bool
) -> None:
    plain = continue_tokens(base, base.model, prompts, max_new_tokens=12, on_progress=ignore)
    with attached(base.model, modules, LoraSpec(), seed=0) as tuned:
        if trained:
            generator = torch.Generator().manual_seed(0)
            for name, parameter in tuned.named_parameters():
                if "lora_B" in name:
                    parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        found = continue_tokens(base, tuned, prompts, max_new_tokens=12, on_progress=ignore)
        assert found == one_by_one(base, prompts, 12, model=tuned)
        assert (found == plain) != trained


def test_a_model_in_bfloat16_answers_too(base: BaseModel, alike: list[list[int]]) -> None:
    other = tiny_base("llama", base)
    other.model.bfloat16()
    with torch.inference_mode():
        assert decoder_of(other.model, other.pad_id) is not None
    rows = continue_tokens(other, other.model, alike, max_new_tokens=12, on_progress=ignore)
    assert all(len(row) == 12 or row[-1] in other.stop_ids for row in rows)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nothing_asked(base: BaseModel, temperature: float) -> None:
    told = ProgressLog()
    assert answer(base, base.model, [], max_new_tokens=8, on_progress=told, temperature=temperature) == []
    assert told == [(0, 0)]
    told = ProgressLog()
    rows = continue_tokens(base, base.model, [[], [5] * base.context, []], max_new_tokens=8, on_progress=told)
    assert rows == [[], [], []]
    assert told == [(3, 3)]


# What is too long.


@pytest.mark.parametrize("most", [8, 16, 63, 64, 500])
def test_a_prompt_that_leaves_no_room_is_not_asked(base: BaseModel, most: int) -> None:
    # GPT-2's positions are a table of 64: one token too many ends in an error.
    other = tiny_base("gpt2", base)
    least = min(most, MIN_ROOM)
    conversations = user_turns(*("7" * count for count in range(30, 70)), "Hello")
    prompts = [render(base.tokenizer, each) for each in conversations]
    fits = [len(prompt) + least <= other.context for prompt in prompts]
    assert {True, False} == set(fits)
    assert max(len(prompt) for prompt, fit in zip(prompts, fits, strict=True) if fit) == other.context - least
    found = answer(other, other.model, conversations, max_new_tokens=most, on_progress=ignore)
    assert [text is not None for text in found] == fits
    assert render_prompts(other, conversations, max_new_tokens=most) == [
        prompt if fit else None for prompt, fit in zip(prompts, fits, strict=True)
    ]


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_an_answer_ends_where_the_context_does(base: BaseModel, family: str) -> None:
    other = tiny_base(family, base)
    other.model.generation_config = GenerationConfig(eos_token_id=[])
    lengths = (60, 10, 64, 63, 30, 70)
    asked_for = [[7 + place] * length for place, length in enumerate(lengths)]
    found = continue_tokens(other, other.model, asked_for, max_new_tokens=100, on_progress=ignore)
    assert [len(row) for row in found] == [max(0, 64 - length) for length in lengths]
    fitting = [(prompt, row) for prompt, row in zip(asked_for, found, strict=True) if row]
    for prompt, row in fitting:
        assert [row] == one_by_one(other, [prompt], len(row))


# What is told.


def check_ticks(told: ProgressLog, total: int) -> None:
    """It never goes back, and ends with everything done, told once."""
    assert all(of == total for _, of in told)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (total, total)
    assert told.count((total, total)) == 1


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_every_token_is_told(base: BaseModel, prompts: list[list[int]], limit_rows: LimitRows, batch_size: int) -> None:
    limit_rows(batch_size)
    told = ProgressLog()
    rows = continue_tokens(base, base.model, prompts, max_new_tokens=5, on_progress=told)
    check_ticks(told, 5)
    assert len(told) >= sum(map(len, rows)) / batch_size
    assert len(told) >= max(map(len, rows))


def test_the_answers_of_a_batch_count_as_they_grow(base: BaseModel, prompts: list[list[int]]) -> None:
    told = ProgressLog()
    other = endless(base)
    continue_tokens(other, other.model, [prompts[1]] * 4, max_new_tokens=3, on_progress=told)
    assert told == [(1, 4), (2, 4), (4, 4)]


@pytest.mark.parametrize("family", ["llama", "lfm2"])
def test_a_stop_ends_it_at_that_token(base: BaseModel, prompts: list[list[int]], family: str) -> None:
    other = recurrent(family, base) if family in RECURRENT else base
    calls = 0

    def stop(_done: int, _total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        continue_tokens(other, other.model, prompts, max_new_tokens=24, on_progress=stop)
    assert calls == 3


# Where an answer ends.


def test_an_answer_ends_with_any_of_the_terminators(base: BaseModel, prompts: list[list[int]]) -> None:
    other = tiny_base("llama", base)
    (free,) = one_by_one(other, prompts[:1], 12)
    middle = free[5]
    other.model.generation_config = GenerationConfig(eos_token_id=[7, middle])
    assert other.stop_ids == [7, middle]
    rows = continue_tokens(other, other.model, prompts, max_new_tokens=12, on_progress=ignore)
    assert rows[0] == free[: free.index(middle) + 1]
    assert all(not {7, middle} & set(row[:-1]) for row in rows)


def test_a_model_without_terminators_answers_to_the_limit(base: BaseModel, prompts: list[list[int]]) -> None:
    other = endless(base)
    assert other.stop_ids == []
    rows = continue_tokens(other, other.model, prompts, max_new_tokens=12, on_progress=ignore)
    assert [len(row) for row in rows] == [12] * len(prompts)


def test_an_answer_of_which_enough_is_known_ends_early(base: BaseModel, prompts: list[list[int]]) -> None:
    other = endless(base)
    whole = continue_tokens(other, other.model, prompts[:3], max_new_tokens=40, on_progress=ignore)
    heard: list[tuple[int, list[int]]] = []

    def early_stop(index: int, tokens: list[int]) -> bool:
        heard.append((index, tokens))
        return len(tokens) >= {0: 50, 1: 32, 2: 16}[index]

    rows = continue_tokens(
        other, other.model, prompts[:3], max_new_tokens=40, on_progress=ignore, early_stop=early_stop
    )
    assert rows == [whole[0], whole[1][:32], whole[2][:16]]
    assert sorted(heard) == sorted(
        (index, whole[index][:length])
        for index, lengths in enumerate([(16, 32), (16, 32), (16,)])
        for length in lengths
    )


def test_text_can_settle_an_answer_too(base: BaseModel) -> None:
    other = endless(base)
    heard: list[tuple[int, str]] = []

    def early_stop(index: int, text: str) -> bool:
        heard.append((index, text))
        return True

    found = answer(
        other, other.model, user_turns(*TEXTS[:2]), max_new_tokens=40, on_progress=ignore, early_stop=early_stop
    )
    assert sorted(heard) == list(enumerate(found))


# Chance.


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("top_p", [0.2, 0.9, 1.0])
def test_tokens_are_drawn_as_often_as_transformers_would(temperature: float, top_p: float) -> None:
    logits = 2 * torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    none = torch.zeros(3, 1, dtype=torch.long)
    warped = TopPLogitsWarper(top_p)(none, TemperatureLogitsWarper(temperature)(none, logits))
    steps = 20_000
    chances = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    drawn = [
        sample(row.expand(steps, -1), chances, temperature=temperature, top_p=top_p).bincount(minlength=20) / steps
        for row in logits
    ]
    assert torch.allclose(torch.stack(drawn), warped.softmax(-1), atol=2 / steps)


def test_the_likeliest_token_is_left_whatever_the_share() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [5.0, 5.0, 0.0]])
    for chance in (0.0, 0.5, 1.0 - 1e-16):
        chances = torch.full((2,), chance, dtype=torch.float64)
        assert sample(logits, chances, temperature=1.0, top_p=0.0).tolist() == [1, 0]
        assert sample(logits, chances, temperature=1e-6, top_p=1.0)[0] == 1


def test_chance_belongs_to_the_seed_and_the_row(
    base: BaseModel, prompts: list[list[int]], limit_rows: LimitRows
) -> None:
    def draw(some: Sequence[Sequence[int]], *, seed: int = 5, batch_size: int = 64) -> list[list[int]]:
        limit_rows(batch_size)
        return continue_tokens(
            base,
            base.model,
            some,
            max_new_tokens=16,
            on_progress=ignore,
            sampler=Sampler(1.5, 0.95, seed),
        )

    first = draw(prompts)
    state = torch.random.get_rng_state()
    assert draw(prompts) == draw(prompts, batch_size=1) == draw(prompts, batch_size=2) == first
    assert torch.equal(torch.random.get_rng_state(), state)
    assert draw([*prompts[:-1], prompts[0]])[:-1] == first[:-1]
    assert draw(prompts, seed=6) != first
    assert draw(prompts, seed=-1) != first
    greedy = continue_tokens(base, base.model, prompts, max_new_tokens=16, on_progress=ignore)
    assert first != greedy
    assert len({tuple(row) for row in draw([prompts[3]] * 8)}) > 4


# What is computed.


@pytest.mark.parametrize("batch_size", [2, 64])
def test_what_all_prompts_begin_with_is_read_once(
    base: BaseModel, alike: list[list[int]], limit_rows: LimitRows, batch_size: int
) -> None:
    limit_rows(batch_size)
    other = endless(base)
    some = alike[:4]
    common = len(list(takewhile(lambda column: len(set(column)) == 1, zip(*some, strict=False))))
    longest = max(map(len, some)) - common
    with watched(other.model) as seen:
        continue_tokens(other, other.model, some, max_new_tokens=2, on_progress=ignore)
    assert seen.shapes[0] == (1, common)
    assert all(width <= longest for _, width in seen.shapes[1:])
    assert seen.read <= common + len(some) * longest


def test_prompts_that_occur_several_times_are_read_once(base: BaseModel) -> None:
    other = endless(base)
    some = [[20 + number] * 12 for number in range(3)] * 4
    with watched(other.model) as seen:
        found = continue_tokens(other, other.model, some, max_new_tokens=5, on_progress=ignore)
    assert seen.shapes[:2] == [(3, 11), (12, 1)]
    assert found == one_by_one(other, some, 5)


def test_many_answers_to_one_prompt_read_it_once(base: BaseModel, prompts: list[list[int]]) -> None:
    other = endless(base)
    with watched(other.model) as seen:
        continue_tokens(
            other, other.model, [prompts[3]] * 10, max_new_tokens=4, on_progress=ignore, sampler=Sampler(1.0)
        )
    assert seen.shapes == [(1, len(prompts[3]) - 1), (10, 1), (10, 1), (10, 1), (10, 1)]


def test_rows_that_end_leave_and_rows_that_wait_join(
    base: BaseModel, prompts: list[list[int]], limit_rows: LimitRows
) -> None:
    many = [*prompts, *(prompt[:-2] for prompt in prompts)] * 4
    for batch_size in (64, 10):
        limit_rows(batch_size)
        with watched(base.model) as seen:
            rows = continue_tokens(base, base.model, many, max_new_tokens=30, on_progress=ignore)
        stepped = seen.stepped
        assert max(stepped) <= batch_size
        answered = sum(map(len, rows))
        assert len({len(row) for row in rows}) > 3
        # A batch that waits for its longest row would step some 40 * 30 rows.
        assert sum(stepped) <= 1.4 * answered
        # Rows join long before the batch they find has ended.
        assert len(stepped) <= 1.7 * answered / batch_size + 30


@pytest.mark.parametrize("rows_held", [0, 1, 3])
def test_memory_bounds_a_batch(
    base: BaseModel, alike: list[list[int]], monkeypatch: pytest.MonkeyPatch, rows_held: int
) -> None:
    other = tiny_base("llama", base)
    slot_bytes = 2 * 2 * 2 * 4 * 4  # layers, keys and values, heads, width, float32
    longest = max(map(len, alike)) + 12
    monkeypatch.setattr(engine, "_CPU_CACHE_BYTES", rows_held * longest * slot_bytes)
    wanted = one_by_one(other, alike, 12)
    with watched(other.model) as seen:
        assert continue_tokens(other, other.model, alike, max_new_tokens=12, on_progress=ignore) == wanted
    assert max(seen.stepped) <= max(1, rows_held)


def test_long_prompts_are_read_a_few_at_a_time(
    base: BaseModel, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_CPU_READ_TOKENS", 64)
    other = tiny_base("llama", base)
    wanted = one_by_one(other, prompts, 12)
    with watched(other.model) as seen:
        assert continue_tokens(other, other.model, prompts, max_new_tokens=12, on_progress=ignore) == wanted
    read = [rows * width for rows, width in seen.shapes if width > 1]
    assert len(read) > 1
    assert max(read) <= 64


@pytest.mark.parametrize("bound", ["rows", "memory", "tokens"])
def test_half_batches_have_half_the_rows_whatever_bounds_them(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    other = endless(base)
    rng = Random(0)  # noqa: S311 - not for security
    prompts = [[rng.randrange(10, VOCABULARY) for _ in range(20)] for _ in range(8)]
    if bound == "memory":
        monkeypatch.setattr(engine, "_CPU_CACHE_BYTES", 4 * (20 + 6) * 2 * 2 * 2 * 4 * 4)
    if bound == "tokens":
        monkeypatch.setattr(engine, "_CPU_READ_TOKENS", 80)
    seen: list[Passes] = []
    found: list[list[list[int]]] = []
    for half in (False, True):
        measured = replace(other, half_batches=half)
        with watched(other.model) as passes:
            found.append(continue_tokens(measured, other.model, prompts, max_new_tokens=6, on_progress=ignore))
        seen.append(passes)
    usual, halved = seen
    assert max(usual.stepped) == {"rows": 8, "memory": 4, "tokens": 8}[bound]
    assert max(halved.stepped) == max(usual.stepped) // 2
    assert not set(usual.shapes) & set(halved.shapes), "no pass has the shape of another"
    assert found[0] == found[1], "only rounding may differ"


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom", "mistral"])
@pytest.mark.parametrize("seed", range(3))
def test_rows_that_come_and_go_at_any_time_change_no_answer(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch, limit_rows: LimitRows, family: str, seed: int
) -> None:
    chance = Random(seed)  # noqa: S311 - nothing is kept secret
    other = tiny_base(family, base)
    other.model.generation_config = GenerationConfig(eos_token_id=chance.sample(range(VOCABULARY), 120))
    begun = [[chance.randrange(10, VOCABULARY) for _ in range(chance.randrange(20))] for _ in range(4)]
    some = [
        [*chance.choice(begun), *(chance.randrange(10, VOCABULARY) for _ in range(chance.randrange(1, 20)))]
        for _ in range(20)
    ]
    some += chance.choices(some, k=10)
    monkeypatch.setattr(cache, "_SPARE_SLOTS", chance.choice([1, 3, 64]))
    monkeypatch.setattr(decode, "_MIN_SAVING", chance.choice([0.0, 0.125, 1.0]))
    monkeypatch.setattr(engine, "_CPU_READ_TOKENS", chance.choice([32, 200, 1024]))
    monkeypatch.setattr(engine, "_CPU_CACHE_BYTES", chance.choice([1 << 15, 1 << 17, 1 << 30]))
    monkeypatch.setattr(engine, "_LEAVE_AFTER", chance.choice([1, 8, 1000]))
    monkeypatch.setattr(engine, "_REFILL_BELOW", chance.choice([0.1, 0.75, 1.0]))
    limit_rows(chance.choice([3, 10, 64]))
    found = continue_tokens(other, other.model, some, max_new_tokens=16, on_progress=ignore)
    assert found == one_by_one(other, some, 16)


@pytest.mark.parametrize("room", [1, 7])
def test_long_answers_outgrow_their_room(base: BaseModel, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    monkeypatch.setattr(cache, "_SPARE_SLOTS", room)
    other = endless(base)
    some = [[7, 8, 9], [10, 11], [12] * 9]
    assert continue_tokens(other, other.model, some, max_new_tokens=50, on_progress=ignore) == one_by_one(
        other, some, 50
    )


def test_nothing_is_left_on_the_model(base: BaseModel, prompts: list[list[int]]) -> None:
    model = tiny("llama")
    other = BaseModel(model, base.tokenizer, base.identity, base.folder)
    config = model.generation_config
    continue_tokens(other, model, prompts, max_new_tokens=4, on_progress=ignore, sampler=Sampler(1.0))
    assert model.generation_config is config
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
