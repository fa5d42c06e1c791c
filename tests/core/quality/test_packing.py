"""Batches hold every row once and no more tokens than there is room for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.lm.load import BaseModel
from core.quality.packing import packed, room
from tests.core.quality.fakes import always


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 8), st.integers(1, 200))
def test_every_row_is_in_one_batch_that_fits(lengths: list[int], rows: int, tokens: int) -> None:
    batches = list(packed(lengths, rows=rows, tokens=tokens))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= rows
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= tokens
    order = [lengths[index] for batch in batches for index in batch]
    assert order == sorted(order)


def test_a_larger_vocabulary_leaves_less_room(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert room(base) * len(base.tokenizer) <= 1 << 27 < (room(base) + 1) * len(base.tokenizer)
    monkeypatch.setattr(type(base.tokenizer), "__len__", always(128_256))
    assert room(base) == 1046
