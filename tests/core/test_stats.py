"""Intervals against published values, and against their own logic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.stats import mean_interval, wilson


@pytest.mark.parametrize(
    ("successes", "n", "wanted"),
    [
        # Newcombe 1998, table I, method 3 (score without continuity correction).
        (81, 263, (0.3080, 0.2553, 0.3662)),
        (15, 148, (0.1014, 0.0624, 0.1605)),
        (0, 20, (0.0, 0.0, 0.1611)),
        (1, 29, (0.0345, 0.0061, 0.1718)),
    ],
)
def test_wilson_against_a_published_table(successes: int, n: int, wanted: tuple[float, float, float]) -> None:
    assert wilson(successes, n) == pytest.approx(wanted, abs=5e-5)


def test_of_nothing_nothing_is_known() -> None:
    assert wilson(0, 0) == (0.0, 0.0, 1.0)
    assert mean_interval([], lowest=1, highest=5) == (1, 1, 5)
    assert mean_interval([3.0], lowest=1, highest=5) == (3.0, 1, 5)


@given(st.integers(1, 1000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_rate_is_inside_its_interval_and_more_answers_narrow_it(case: tuple[int, int]) -> None:
    successes, n = case
    rate, low, high = wilson(successes, n)
    assert rate == successes / n
    assert -1e-12 <= low <= rate + 1e-12
    assert rate - 1e-12 <= high <= 1 + 1e-12
    _, tighter_low, tighter_high = wilson(4 * successes, 4 * n)
    assert tighter_high - tighter_low < high - low


def test_the_mean_of_a_few_values_by_hand() -> None:
    # n = 4, mean 2.5, standard deviation 1.29099, t(0.975, 3) = 3.18245
    assert mean_interval([1, 2, 3, 4], lowest=0, highest=10) == pytest.approx((2.5, 0.445739, 4.554261), abs=1e-6)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=50))
def test_a_mean_stays_inside_what_it_can_be(scores: list[int]) -> None:
    mean, low, high = mean_interval(scores, lowest=1, highest=5)
    assert 1 <= low <= mean + 1e-12
    assert mean - 1e-12 <= high <= 5
