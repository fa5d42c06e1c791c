"""Batches hold every row once and no more tokens than there is room for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.lm.load import BaseModel
from core.lm.packing import max_batch_tokens, pack_by_length


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 8), st.integers(1, 200))
def test_every_row_is_in_one_batch_that_fits(lengths: list[int], rows: int, tokens: int) -> None:
    batches = list(pack_by_length(lengths, max_rows=rows, max_tokens=tokens))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= rows
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= tokens
    order = [lengths[index] for batch in batches for index in batch]
    assert order == sorted(order, reverse=True)


def test_a_larger_vocabulary_leaves_less_room(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert max_batch_tokens(base) * len(base.tokenizer) <= 1 << 27 < (max_batch_tokens(base) + 1) * len(base.tokenizer)

    def larger(_tokenizer: object) -> int:
        return 128_256

    monkeypatch.setattr(type(base.tokenizer), "__len__", larger)
    assert max_batch_tokens(base) == 1046


@given(st.lists(st.integers(1, 300), min_size=1, max_size=120))
def test_no_more_than_the_given_share_of_a_batch_is_padding(lengths: list[int]) -> None:
    batches = list(pack_by_length(lengths, max_rows=32, max_tokens=4096, max_padding=0.125))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        sizes = [lengths[index] for index in batch]
        padded = len(sizes) * max(sizes)
        assert 1 <= len(sizes) <= 32
        assert padded <= 4096 or len(sizes) == 1
        assert padded - sum(sizes) <= padded / 8


def test_rows_of_one_length_fill_a_batch() -> None:
    def sizes(lengths: list[int]) -> list[int]:
        return [len(batch) for batch in pack_by_length(lengths, max_rows=32, max_tokens=4096, max_padding=0.125)]

    assert sizes([7] * 70) == [32, 32, 6]
    assert sizes([1500] * 5) == [2, 2, 1]
    assert sizes([9000] * 2) == [1, 1]
    assert sizes([]) == []
