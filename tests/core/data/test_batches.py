"""Hold-out, order, padding and counts: all decided by seeds, nothing lost."""

from collections.abc import Callable
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from core.data import Conversation
from core.data.batches import batches_from, collate, epoch_batches, split
from core.data.encoded import IGNORED, Encoded
from core.data.preview import masked_sample
from core.data.template import encode_all
from core.errors import InvalidDataset, TrainingFailed
from core.lm.chat import PLAIN_TEMPLATE
from core.schemas.data import Message

MakeTokenizer = Callable[..., PreTrainedTokenizerFast]


def encoded(ids: list[int], labels: list[int]) -> Encoded:
    return Encoded(np.array(ids, dtype=np.int32), np.array(labels, dtype=np.int32), 1, False)


def conversation(prompt: str, answer: str, line: int = 1) -> Conversation:
    return Conversation((Message(role="user", content=prompt), Message(role="assistant", content=answer)), line)


def test_collate_pads_on_the_right() -> None:
    batch = collate([encoded([5, 6, 7], [IGNORED, 6, 7]), encoded([8], [8])], pad_id=9)
    assert batch.input_ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.labels.tolist() == [[IGNORED, 6, 7], [8, IGNORED, IGNORED]]
    assert {tensor.dtype for tensor in (batch.input_ids, batch.attention_mask, batch.labels)} == {torch.int64}
    assert batch.to(torch.device("meta")).labels.device.type == "meta"


def test_encode_all_counts(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(PLAIN_TEMPLATE)
    rows = [conversation("a", "b", 1), conversation("long " * 60, "b", 2), conversation("a", "long " * 60, 3)]
    dataset = encode_all(iter(rows), tokenizer, max_length=60)
    assert [row.line for row in dataset.rows] == [1, 3]
    assert (dataset.dropped, [row.cut_tokens > 0 for row in dataset.rows]) == (1, [False, True])
    assert [row.trained_tokens for row in dataset.rows] == [int((row.labels != IGNORED).sum()) for row in dataset.rows]
    assert len(dataset.rows[1].input_ids) == 60
    assert all(0 < row.trained_tokens < len(row.input_ids) for row in dataset.rows)


@pytest.mark.parametrize("rows", [[], [conversation("long " * 60, "b")]])
def test_nothing_left_to_train_on(make_tokenizer: MakeTokenizer, rows: list[Conversation]) -> None:
    with pytest.raises(TrainingFailed, match=r"of 1 rows|of 0 rows") as caught:
        encode_all(rows, make_tokenizer(PLAIN_TEMPLATE), max_length=40)
    assert caught.value.code == "no_trainable_rows"
    assert caught.value.param == "training.max_length"


@given(st.integers(2, 400), st.floats(0.001, 0.999), st.integers(0, 2**31 - 1), st.integers(1, 50))
def test_split(count: int, share: float, seed: int, cap: int) -> None:
    kept, held = split(range(count), share=share, seed=seed, cap=cap)
    assert sorted(kept + held) == list(range(count))
    assert kept == sorted(kept)
    assert held == sorted(held)
    assert 1 <= len(held) <= min(cap, max(1, round(share * count)))
    assert kept
    assert (kept, held) == split(range(count), share=share, seed=seed, cap=cap)


def test_split_depends_on_the_seed() -> None:
    assert len({tuple(split(range(100), share=0.1, seed=seed, cap=200)[1]) for seed in range(10)}) == 10


@pytest.mark.parametrize("rows", [[], [1]])
def test_split_needs_two_rows(rows: list[int]) -> None:
    with pytest.raises(InvalidDataset, match="validation_dataset") as caught:
        split(rows, share=0.5, seed=0, cap=10)
    assert caught.value.code == "too_few_rows"


@given(st.integers(0, 200), st.integers(1, 40), st.integers(0, 2**31 - 1), st.integers(0, 50))
def test_an_epoch_has_every_row_once(count: int, size: int, seed: int, epoch: int) -> None:
    batches = epoch_batches(count, size, seed=seed, epoch=epoch)
    assert sorted(index for batch in batches for index in batch) == list(range(count))
    assert all(len(batch) == size for batch in batches[:-1])
    assert batches == epoch_batches(count, size, seed=seed, epoch=epoch)


def test_epochs_and_seeds_differ() -> None:
    orders = {tuple(epoch_batches(50, 50, seed=seed, epoch=epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


def test_masked_sample_keeps_characters_whole(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(PLAIN_TEMPLATE)
    row = encode_all([conversation("é🙂 ,", "中文 .")], tokenizer, max_length=100).rows[0]
    assert masked_sample(row, tokenizer) == "### User:\né🙂 ,\n\n### Assistant:\n[[中文 .</s>]]\n"


@given(st.lists(st.integers(1, 40), min_size=1, max_size=300), st.integers(1, 9), st.integers(0, 3), st.integers(0, 3))
def test_batches_of_like_length_hold_every_row_once(lengths: list[int], size: int, seed: int, epoch: int) -> None:
    batches = epoch_batches(len(lengths), size, seed=seed, epoch=epoch, lengths=lengths)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert sorted(len(batch) for batch in batches) == sorted(
        len(batch) for batch in epoch_batches(len(lengths), size, seed=seed, epoch=epoch)
    )
    assert batches == epoch_batches(len(lengths), size, seed=seed, epoch=epoch, lengths=lengths)


def test_batches_of_like_length_save_padding_and_differ_between_epochs() -> None:
    lengths = [int(length) for length in np.random.default_rng(0).integers(10, 100, 800)]

    def padding(batches: list[tuple[int, ...]]) -> int:
        return sum(max(lengths[index] for index in batch) - lengths[row] for batch in batches for row in batch)

    first, second = (epoch_batches(800, 8, seed=0, epoch=epoch, lengths=lengths) for epoch in (0, 1))
    assert padding(first) < 0.15 * padding(epoch_batches(800, 8, seed=0, epoch=0))
    assert not set(map(frozenset, first)) & set(map(frozenset, second)), "the same rows would meet again and again"
    means = [sum(lengths[index] for index in batch) / 8 for batch in first]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.3, "the order of the batches is shuffled"


@pytest.mark.parametrize("by_length", [False, True])
def test_one_goes_on_behind_any_batch(by_length: bool) -> None:
    rows = [encoded([1] * (1 + index % 5), [1] * (1 + index % 5)) for index in range(11)]

    def first(step: int, count: int) -> list[list[int]]:
        batches = batches_from(step, rows, 4, seed=3, by_length=by_length)
        return [[rows.index(row) for row in batch] for batch in islice(batches, count)]

    whole = first(0, 9)
    assert [sum(len(batch) for batch in whole[start : start + 3]) for start in (0, 3, 6)] == [11, 11, 11]
    for step in range(9):
        assert first(step, 9 - step) == whole[step:]


def test_trained_tokens_are_those_that_something_stands_before() -> None:
    batch = collate([encoded([5, 6, 7], [5, IGNORED, 7]), encoded([8], [8])], pad_id=9)
    assert batch.trained_tokens == 1
