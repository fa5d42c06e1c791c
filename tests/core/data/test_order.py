"""Hold-out and order: all decided by seeds, nothing lost."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data.encoded import Encoded
from core.data.order import batches_from, epoch_batches, split
from core.errors import InvalidDataset


def encoded(ids: list[int], labels: list[int]) -> Encoded:
    return Encoded(np.array(ids, dtype=np.int32), np.array(labels, dtype=np.int32), 1, False)


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
