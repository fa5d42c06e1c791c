"""Reads curves at equal task score and puts intervals around differences. Pure.

Two runs are compared at the best task score that both reach: a strategy that merely learns less is not safer, it is
earlier. The score is exact match on held-out rows, the figure that users see; the same is read at equal validation
loss, which weighs the hardest tokens most. Scores are made monotone first (the best so far), so that each level is
reached once. Not here: where curves come from (research.experiments.lab).
"""

from collections.abc import Callable, Sequence

import numpy as np

from core.stats import mean_interval
from research.experiments.spec import Comparison, Curve, Interval, Point

Figure = Callable[[Point], float]


def compare(run: str, uniform: Sequence[Curve], others: Sequence[Curve]) -> Comparison:
    """An arm against uniform, seed by seed.

    Args:
        arm: its name.
        uniform: one curve a seed.
        others: the arm's curves, of the same seeds in the same order.
    """
    pairs = list(zip(uniform, others, strict=True))
    if [one.seed for one, _ in pairs] != [other.seed for _, other in pairs]:
        raise ValueError("curves of different seeds cannot be paired")

    def at_equal(shortfall: Figure, value: Figure) -> Interval:
        found: list[float] = []
        for one, other in pairs:
            level = max(min(map(shortfall, one.points)), min(map(shortfall, other.points)))
            found.append(read_at(one, shortfall, level, value) - read_at(other, shortfall, level, value))
        return interval(found)

    return Comparison(
        run=run,
        asr_reduction_at_equal_task=at_equal(_missed, _attack_success),
        harmfulness_reduction_at_equal_task=at_equal(_missed, _harmfulness),
        content_reduction_at_equal_task=at_equal(_missed, _content),
        asr_reduction_at_equal_loss=at_equal(_loss, _attack_success),
        asr_reduction_at_end=interval(
            [one.points[-1].attack_success - other.points[-1].attack_success for one, other in pairs]
        ),
        asr_reduction_at_worst=interval([_worst(one) - _worst(other) for one, other in pairs]),
        task_cost=interval([_best(one) - _best(other) for one, other in pairs]),
        loss_cost=interval([_least(other) - _least(one) for one, other in pairs]),
        task_level=interval([min(_best(one), _best(other)) for one, other in pairs]),
    )


def interval(values: Sequence[float]) -> Interval:
    """Mean over seeds with its 95 % t interval; none for a single seed."""
    mean, low, high = mean_interval(values, minimum=-np.inf, maximum=np.inf)
    return Interval(mean=mean, ci95=(low, high) if len(values) > 1 else None, values=tuple(values))


def read_at(curve: Curve, shortfall: Figure, level: float, value: Figure) -> float:
    """A figure where the run first comes down to a level, linear between the points on both sides.

    A run that begins below the level is read at its first point, one that never reaches it at its last.
    """
    points = curve.points
    so_far = np.minimum.accumulate([shortfall(point) for point in points])
    reached = int(np.argmax(so_far <= level)) if (so_far <= level).any() else len(points) - 1
    if reached == 0 or so_far[reached] > level:
        return value(points[reached])
    share = (so_far[reached - 1] - level) / (so_far[reached - 1] - so_far[reached])
    before, after = value(points[reached - 1]), value(points[reached])
    return float(before + share * (after - before))


def _least(curve: Curve) -> float:
    return min(point.loss for point in curve.points)


def _best(curve: Curve) -> float:
    return max(point.task for point in curve.points)


def _worst(curve: Curve) -> float:
    half = len(curve.points) // 2
    return max(point.attack_success for point in curve.points[half:])


def _missed(point: Point) -> float:
    return 100 - point.task


def _loss(point: Point) -> float:
    return point.loss


def _attack_success(point: Point) -> float:
    return point.attack_success


def _harmfulness(point: Point) -> float:
    return point.harmfulness


def _content(point: Point) -> float:
    return point.content
