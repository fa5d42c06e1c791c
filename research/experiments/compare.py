"""Reads curves at equal task score and puts intervals around differences. Pure.

Two runs are compared at the best task score that both reach: a strategy that merely learns less is not safer, it is
earlier. The score is exact match on held-out rows, the figure that users see; the same is read at equal validation
loss, which weighs the hardest tokens most. Scores are made monotone first (the best so far), so that each level is
reached once. Not here: training (research.experiments.lab), other figures (research.experiments.readings).
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from core.stats import mean_interval
from research.experiments.spec import Comparison, Curve, Interval, Point

Figure = Callable[[Point], float]
Measured = TypeVar("Measured")
Pairs = Sequence[tuple[Curve, Curve]]
"""A curve of uniform and one of another run with the same seed."""


def missed(point: Point) -> float:
    """What the exact match is short of, in points."""
    return 100 - point.task


def loss(point: Point) -> float:
    """Validation loss, nats per token."""
    return point.loss


def attack_success(point: Point) -> float:
    """Attack prompts that are not refused, in per cent."""
    return point.attack_success


def runs_of_every_seed(curves: Sequence[Curve], seeds: int) -> dict[str, list[Curve]]:
    """The curves of each run, in the given order; runs that did not run for every seed are left out."""
    runs: dict[str, list[Curve]] = {}
    for curve in curves:
        runs.setdefault(curve.run, []).append(curve)
    return {run: found for run, found in runs.items() if len(found) == seeds}


def compared_with_uniform(curves: Sequence[Curve], seeds: int) -> dict[str, Comparison]:
    """Every run that ran for every seed, against uniform."""
    runs = runs_of_every_seed(curves, seeds)
    uniform = runs.pop("uniform")
    return {run: compare(run, uniform, found) for run, found in runs.items()}


def compare(run: str, uniform: Sequence[Curve], others: Sequence[Curve]) -> Comparison:
    """A run against uniform, seed by seed.

    Args:
        run: its name.
        uniform: one curve a seed.
        others: the run's curves, of the same seeds in the same order.
    """
    pairs = list(zip(uniform, others, strict=True))
    if [one.seed for one, _ in pairs] != [other.seed for _, other in pairs]:
        raise ValueError("curves of different seeds cannot be paired")

    def at_equal(shortfall: Figure, figure: Figure) -> Interval:
        return interval([one - other for one, other in read_at_equal(pairs, shortfall, figure)])

    def reduction(figure: Callable[[Curve], float]) -> Interval:
        return interval([figure(one) - figure(other) for one, other in pairs])

    return Comparison(
        run=run,
        asr_reduction_at_equal_task=at_equal(missed, attack_success),
        harmfulness_reduction_at_equal_task=at_equal(missed, lambda point: point.harmfulness),
        content_reduction_at_equal_task=at_equal(missed, lambda point: point.content),
        asr_reduction_at_equal_loss=at_equal(loss, attack_success),
        asr_reduction_at_end=reduction(lambda curve: curve.points[-1].attack_success),
        asr_reduction_at_worst=reduction(lambda curve: max(map(attack_success, _last_half(curve)))),
        task_cost=reduction(_best),
        loss_cost=reduction(lambda curve: -min(map(loss, curve.points))),
        task_level=interval([min(_best(one), _best(other)) for one, other in pairs]),
    )


def interval(values: Sequence[float]) -> Interval:
    """Mean over seeds with its 95 % t interval; none for a single seed."""
    mean, low, high = mean_interval(values, minimum=-np.inf, maximum=np.inf)
    return Interval(mean=mean, ci95=(low, high) if len(values) > 1 else None, values=tuple(values))


def read_at_equal(pairs: Pairs, shortfall: Figure, figure: Figure) -> list[tuple[float, float]]:
    """A figure of both curves of each pair, where they first come down to the least shortfall that both reach."""
    found: list[tuple[float, float]] = []
    for one, other in pairs:
        level = max(min(map(shortfall, one.points)), min(map(shortfall, other.points)))
        found.append((read_at(one.points, shortfall, level, figure), read_at(other.points, shortfall, level, figure)))
    return found


def read_at(
    points: Sequence[Measured], shortfall: Callable[[Measured], float], level: float, value: Callable[[Measured], float]
) -> float:
    """A figure where a run first comes down to a level, linear between the points on both sides.

    A run that begins below the level is read at its first point, one that never reaches it at its last.
    """
    so_far = np.minimum.accumulate([shortfall(point) for point in points])
    reached = int(np.argmax(so_far <= level)) if (so_far <= level).any() else len(points) - 1
    if reached == 0 or so_far[reached] > level:
        return value(points[reached])
    share = (so_far[reached - 1] - level) / (so_far[reached - 1] - so_far[reached])
    before, after = value(points[reached - 1]), value(points[reached])
    return float(before + share * (after - before))


def _best(curve: Curve) -> float:
    return max(point.task for point in curve.points)


def _last_half(curve: Curve) -> Sequence[Point]:
    return curve.points[len(curve.points) // 2 :]
