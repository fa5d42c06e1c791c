"""Curves are read at equal task score, and differences get intervals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.experiments.compare import compare, interval, read_at
from research.experiments.spec import Curve, Point


def point(step: int, loss: float, attack_success: float, task: float = 0.0) -> Point:
    return Point(
        step=step,
        loss=loss,
        task=task,
        attack_success=attack_success,
        by_family={},
        harmfulness=1 + attack_success / 25,
        content=attack_success / 2,
        over_refusal=0.0,
    )


def curve(run: str, seed: int, *points: Point) -> Curve:
    return Curve(run=run, seed=seed, rate=1e-3, full_rate_modules=1, points=points, seconds=1.0)


def success(each: Point) -> float:
    return each.attack_success


def loss(each: Point) -> float:
    return each.loss


FALLING = curve("a", 0, point(1, 2.0, 0.0), point(2, 1.0, 40.0), point(3, 0.5, 80.0))


@pytest.mark.parametrize(
    ("level", "wanted"), [(2.0, 0.0), (1.5, 20.0), (1.0, 40.0), (0.75, 60.0), (0.5, 80.0), (0.1, 80.0), (3.0, 0.0)]
)
def test_a_curve_is_read_between_the_points_on_both_sides_of_a_level(level: float, wanted: float) -> None:
    assert read_at(FALLING.points, loss, level, success) == pytest.approx(wanted)


def test_a_level_is_reached_where_it_is_first_reached() -> None:
    wavering = curve("a", 0, point(1, 2.0, 0.0), point(2, 1.0, 90.0), point(3, 1.8, 10.0), point(4, 0.9, 20.0))
    assert read_at(wavering.points, loss, 1.0, success) == pytest.approx(90.0)
    assert read_at(wavering.points, loss, 1.5, success) == pytest.approx(45.0)


@given(st.lists(st.floats(0.01, 5.0), min_size=1, max_size=8), st.floats(0.01, 5.0))
def test_what_is_read_lies_within_the_curve(losses: list[float], level: float) -> None:
    points = [point(step, loss, 10.0 * step) for step, loss in enumerate(losses, start=1)]
    assert 10.0 <= read_at(curve("a", 0, *points).points, loss, level, success) <= 10.0 * len(losses) + 1e-9


def test_both_are_compared_at_the_best_task_score_that_both_reach() -> None:
    uniform = curve("uniform", 0, point(1, 1.0, 50.0, 60.0), point(2, 0.2, 100.0, 95.0))
    slow = curve("slow", 0, point(1, 2.0, 0.0, 10.0), point(2, 0.6, 10.0, 81.0))
    found = compare("slow", [uniform], [slow])
    assert found.task_level.mean == pytest.approx(81.0)
    assert found.asr_reduction_at_equal_task.mean == pytest.approx(80.0 - 10.0)  # 81 is three fifths of 60 to 95
    assert found.harmfulness_reduction_at_equal_task.mean == pytest.approx((80.0 - 10.0) / 25)
    assert found.asr_reduction_at_equal_loss.mean == pytest.approx(75.0 - 10.0)
    assert found.asr_reduction_at_end.mean == pytest.approx(90.0)
    assert found.asr_reduction_at_worst.mean == pytest.approx(90.0)
    assert found.task_cost.mean == pytest.approx(14.0)
    assert found.loss_cost.mean == pytest.approx(0.4)


def test_the_same_run_slowed_down_gains_nothing() -> None:
    whole = curve("uniform", 0, point(1, 2.0, 0.0, 0.0), point(2, 1.0, 50.0, 40.0), point(3, 0.5, 100.0, 80.0))
    half_way = curve("slow", 0, point(2, 2.0, 0.0, 0.0), point(4, 1.0, 50.0, 40.0))
    found = compare("slow", [whole], [half_way])
    assert found.asr_reduction_at_equal_task.mean == found.asr_reduction_at_equal_loss.mean == pytest.approx(0.0)


def test_the_worst_point_of_the_last_half_counts() -> None:
    peaked = curve("uniform", 0, *(point(step, 1 / step, value) for step, value in enumerate((99, 0, 70, 5), start=1)))
    calm = curve("calm", 0, *(point(step, 1 / step, 1.0) for step in range(1, 5)))
    assert compare("calm", [peaked], [calm]).asr_reduction_at_worst.mean == pytest.approx(69.0)


def test_runs_of_different_seeds_are_not_paired() -> None:
    with pytest.raises(ValueError, match="different seeds"):
        compare("a", [curve("uniform", 0, point(1, 1.0, 0.0))], [curve("a", 1, point(1, 1.0, 0.0))])


def test_one_seed_has_no_interval_and_several_have_one_that_holds_the_mean() -> None:
    assert interval([3.0]).ci95 is None
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == pytest.approx(2.0)
    assert found.ci95 is not None
    # t of 2 degrees of freedom is 4.303; the standard error is 1 / sqrt(3)
    assert found.ci95 == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-3)
