"""Intervals against published values and their own properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.schemas.policy import fewest_for
from core.stats import kappa, mean_interval, paired_change, wilson


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


def test_without_answers_a_rate_is_unknown() -> None:
    assert wilson(0, 0) == (0.0, 0.0, 1.0)
    assert mean_interval([], minimum=1, maximum=5) == (1, 1, 5)
    assert mean_interval([3.0], minimum=1, maximum=5) == (3.0, 1, 5)


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
    assert mean_interval([1, 2, 3, 4], minimum=0, maximum=10) == pytest.approx((2.5, 0.445739, 4.554261), abs=1e-6)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=50))
def test_the_interval_of_a_mean_stays_in_its_range(scores: list[int]) -> None:
    mean, low, high = mean_interval(scores, minimum=1, maximum=5)
    assert 1 <= low <= mean + 1e-12
    assert mean - 1e-12 <= high <= 5


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60),
)
def test_a_paired_change_is_inside_its_interval(pairs: list[tuple[bool, bool]]) -> None:
    before, after = [float(one) for one, _ in pairs], [float(other) for _, other in pairs]
    mean, low, high = paired_change(before, after, span=1.0)
    assert mean == pytest.approx(sum(after) / len(pairs) - sum(before) / len(pairs))
    assert -1 <= low <= mean + 1e-12
    assert mean - 1e-12 <= high <= 1
    back, back_low, back_high = paired_change(after, before, span=1.0)
    assert (back, back_low, back_high) == pytest.approx((-mean, -high, -low), abs=0.06)


def test_a_paired_change_uses_the_pairs() -> None:
    # The same rates, 50 % and 60 %: 10 of 100 pairs changed, or 90 of them in both directions.
    together = paired_change([1.0] * 50 + [0.0] * 50, [1.0] * 60 + [0.0] * 40, span=1.0)
    apart = paired_change([1.0] * 50 + [0.0] * 50, [0.0] * 40 + [1.0] * 60, span=1.0)
    assert together[0] == apart[0] == pytest.approx(0.1)
    assert together[2] - together[1] < 0.13
    assert apart[2] - apart[1] > 0.3
    # A normal approximation of the first: 0.1 +- 1.96 sqrt(0.1 * 0.9 / 100)
    assert together[1:] == pytest.approx((0.0412, 0.1588), abs=0.012)


def test_equal_pairs_are_not_certainty() -> None:
    assert paired_change([0.0] * 80, [0.0] * 80, span=1.0) == (0.0, -wilson(0, 80)[2], wilson(0, 80)[2])
    assert paired_change([0.0] * 80, [1.0] * 80, span=1.0)[1:] == (1.0 - wilson(0, 80)[2], 1.0)
    assert paired_change([], [], span=4.0) == (0.0, -4.0, 4.0)
    assert paired_change([2.0], [3.0], span=4.0)[2] > 2


def test_kappa_against_a_published_table() -> None:
    # Cohen's own kind of table: 20 both yes, 15 both no, 5 and 10 mixed; agreement 0.7, chance 0.5.
    one = [True] * 25 + [False] * 25
    other = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
    assert kappa(one, other) == pytest.approx(0.4)
    assert kappa([True] * 3, [True, False, True]) is None
    assert kappa([], []) is None


@pytest.mark.parametrize("threshold", [0.01, 0.05, 0.1, 0.5])
def test_fewest_for_is_the_smallest_sufficient_number(threshold: float) -> None:
    needed = fewest_for(threshold)
    assert wilson(0, needed)[2] <= threshold < wilson(0, needed - 1)[2]
