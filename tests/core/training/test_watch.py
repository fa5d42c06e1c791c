"""A run ends if its loss is NaN or stays far above the first loss, and not because of one bad batch."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import TrainingFailed
from core.training.watch import check_finite, count_steps_far_above

LOSSES = st.lists(st.floats(0, 20), min_size=1, max_size=60)


def ended_at(losses: list[float]) -> int | None:
    """The step, from 1, at which a run with these losses ends."""
    above = 0
    for step, loss in enumerate(losses, start=1):
        try:
            above = count_steps_far_above(loss, first=losses[0], before=above, step=step, total=len(losses), rate=1e-3)
        except TrainingFailed:
            return step
    return None


@given(LOSSES)
def test_exactly_ten_steps_in_a_row_far_above_the_first_end_the_run(losses: list[float]) -> None:
    far = "".join("x" if loss > losses[0] + 3 else "." for loss in losses)
    place = far.find("x" * 10)
    assert ended_at(losses) == (None if place < 0 else place + 10)


def test_computed_examples() -> None:
    assert ended_at([1.0, *[4.1] * 10]) == 11
    assert ended_at([1.0, *[4.0] * 50]) is None
    assert ended_at([1.0, *[9.0] * 9, 1.0, *[9.0] * 9]) is None
    with pytest.raises(TrainingFailed, match="at step 30 of 99") as caught:
        count_steps_far_above(9.0, first=1.0, before=9, step=30, total=99, rate=1e-3)
    assert (caught.value.code, caught.value.param) == ("loss_exploded", "training.learning_rate")


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_nan_or_infinite_loss_ends_the_run_at_once(loss: float) -> None:
    with pytest.raises(TrainingFailed, match="step 3 of 9") as caught:
        check_finite(loss, step=3, total=9, rate=1e-3)
    assert caught.value.code == "loss_not_finite"
    check_finite(0.0, step=3, total=9, rate=1e-3)
