"""The schedule rises during the warm-up, then decays as its name says, and stays between 0 and 1."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.schemas.training import Schedule
from core.training.schedule import factor

KINDS = st.sampled_from(["constant", "linear", "cosine"])
SHARES = st.floats(0, 1, exclude_max=True)
TOTALS = st.integers(1, 300)


@given(KINDS, TOTALS, SHARES)
def test_the_schedule_rises_then_falls_and_stays_between_0_and_1(kind: Schedule, total: int, share: float) -> None:
    factors = [factor(kind, step, total, share) for step in range(total + 1)]
    assert all(0 <= value <= 1 for value in factors)
    warmup = math.ceil(share * total)
    rising, falling = factors[:warmup], factors[warmup:]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    assert factors[0] > 0, "the first step would be lost"
    if warmup < total:
        assert factors[warmup] == 1.0
        assert factors[-1] == (1.0 if kind == "constant" else pytest.approx(0.0, abs=1e-9))


@given(KINDS, TOTALS)
def test_without_warm_up_the_schedule_starts_at_1(kind: Schedule, total: int) -> None:
    assert factor(kind, 0, total, 0.0) == 1.0


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("constant", [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", [1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        ("cosine", [1 / 3, 2 / 3, *(0.5 + 0.5 * math.cos(math.pi * step / 8) for step in range(8))]),
    ],
)
def test_computed_examples(kind: Schedule, wanted: list[float]) -> None:
    assert [factor(kind, step, 10, 0.2) for step in range(10)] == pytest.approx(wanted)
