"""Refusals are mixed in by their share, in an order that the seed decides, and token for token as they were said."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data.template import IGNORED, Encoded
from core.errors import TrainingFailed
from core.safeguards.mixing import FEWEST, extra_rows, own_answer


def row(number: int) -> Encoded:
    ids = np.array([number, 1, 2], dtype=np.int32)
    return Encoded(input_ids=ids, labels=ids, line=number, truncated=False, prompt_too_long=False)


def test_an_answer_is_trained_on_and_its_prompt_is_not() -> None:
    found = own_answer([5, 6, 7], [8, 9], max_length=16)
    assert found is not None
    assert found.input_ids.tolist() == [5, 6, 7, 8, 9]
    assert found.labels.tolist() == [IGNORED] * 3 + [8, 9]
    assert not found.truncated


def test_an_answer_that_has_no_room_is_cut_or_left_out() -> None:
    cut = own_answer([5, 6, 7], [8, 9], max_length=4)
    assert cut is not None
    assert (cut.input_ids.tolist(), cut.labels.tolist()) == ([5, 6, 7, 8], [IGNORED] * 3 + [8])
    assert cut.truncated
    assert own_answer([5, 6, 7], [8, 9], max_length=3) is None
    assert own_answer([5, 6, 7], [], max_length=16) is None


@given(st.integers(1, 400), st.integers(FEWEST, 40), st.floats(0.001, 0.5), st.integers(0, 3))
def test_the_share_is_met_and_every_refusal_is_used_alike(rows: int, others: int, share: float, seed: int) -> None:
    training, refusals = [row(number) for number in range(rows)], [row(number) for number in range(others)]
    found = extra_rows(training, refusals, share=share, seed=seed)
    wanted = share * (rows + len(found))
    assert abs(len(found) - wanted) <= 1 or len(found) == 1
    counts = [sum(one is other for one in found) for other in refusals]
    assert sum(counts) == len(found)
    assert max(counts) - min(counts) <= 1
    again = extra_rows(training, refusals, share=share, seed=seed)
    assert all(one is other for one, other in zip(found, again, strict=True))


def test_the_seed_decides_which_refusals_are_taken() -> None:
    training, refusals = [row(0)] * 40, [row(number) for number in range(32)]
    orders = {tuple(one.line for one in extra_rows(training, refusals, share=0.2, seed=seed)) for seed in range(5)}
    assert len(orders) == 5


def test_too_few_refusals_are_no_ground() -> None:
    with pytest.raises(TrainingFailed, match=f"only {FEWEST - 1}") as caught:
        extra_rows([row(0)], [row(number) for number in range(FEWEST - 1)], share=0.1, seed=0)
    assert (caught.value.code, caught.value.param) == ("no_safety_rows", "strategy.safeguards.safety_mix")
