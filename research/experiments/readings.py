"""What the experiments on other threats and domains share: which arms they train, and how their figures are read.

Covers: a few of the arms, any figure at the end and at equal task score, text tables. Not here: curves' comparison by
attack success (research.experiments.compare), the arms themselves (research.experiments.arms).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from core.lm.modules import Module
from core.schemas.data import Message
from core.schemas.robustness import RobustnessResult
from core.schemas.strategy import MlLrStrategy
from core.training.strategies import plan
from research.experiments.compare import Figure, interval, read_at
from research.experiments.runs import MIXED, controls, orders, uniform
from research.experiments.spec import Curve, Interval, Point, Reading, Run, Settings

RUNS = ("uniform", "ml_lr", "random", "uniform_low", MIXED["uniform"])
"""ML-LR, its two controls, and the safeguard that protects on this testbed."""


def missed(point: Point) -> float:
    """What the exact match is short of, in points."""
    return 100 - point.task


def loss(point: Point) -> float:
    """Validation loss, nats per token."""
    return point.loss


def figures_of(watched: Iterable[str] = ()) -> dict[str, Figure]:
    """What every point measures, and what is watched beside it, by name."""
    plain: dict[str, Figure] = {
        "attack_success": lambda point: point.attack_success,
        "content": lambda point: point.content,
        "over_refusal": lambda point: point.over_refusal,
        "task": lambda point: point.task,
        "loss": loss,
    }
    return {name: partial(_watched, name) for name in watched} | plain


def _watched(name: str, point: Point) -> float:
    return point.watched[name]


def few_runs(
    settings: Settings,
    modules: Sequence[Module],
    found: RobustnessResult,
    *,
    rate: float,
    seed: int,
    rows: Path | None = None,
) -> list[Run]:
    """One run of each of `ARMS`, on `rows` if a file is named; without `random` where no module is robust."""
    ml_lr = MlLrStrategy(ratio=settings.ratio, analysis=found.analysis)
    plans = {"uniform": uniform(modules), ml_lr.label: plan(ml_lr, modules, found)}
    plans |= controls(settings, modules, found, (), seed=seed)
    runs = orders(settings, modules, plans, rate=rate, seed=seed)
    return [run.model_copy(update={"rows": rows}) for run in runs if run.run in RUNS]


def readings(
    curves: Sequence[Curve], figures: Mapping[str, Figure], *, shortfall: Figure, seeds: int
) -> dict[str, dict[str, Reading]]:
    """By arm and figure; arms that did not run for every seed are left out.

    Args:
        curves: of all arms, those of an arm in the order of their seeds.
        figures: what is read, by name.
        shortfall: what the task is short of: both runs are read where they first come down to the least that both
            reach.
        seeds: how many runs an arm has.
    """
    by_run: dict[str, list[Curve]] = {}
    for curve in curves:
        by_run.setdefault(curve.run, []).append(curve)
    plain = by_run["uniform"]
    return {
        run: {
            name: _reading(plain, runs, figure, shortfall) if run != "uniform" else Reading(at_end=_ends(runs, figure))
            for name, figure in figures.items()
        }
        for run, runs in by_run.items()
        if len(runs) == seeds
    }


def _reading(plain: Sequence[Curve], runs: Sequence[Curve], figure: Figure, shortfall: Figure) -> Reading:
    pairs = list(zip(plain, runs, strict=True))
    levels = [max(min(map(shortfall, each.points)) for each in pair) for pair in pairs]
    uniforms = [read_at(one, shortfall, level, figure) for (one, _), level in zip(pairs, levels, strict=True)]
    others = [read_at(other, shortfall, level, figure) for (_, other), level in zip(pairs, levels, strict=True)]
    return Reading(
        at_end=_ends(runs, figure),
        reduction_at_end=interval([figure(one.points[-1]) - figure(other.points[-1]) for one, other in pairs]),
        at_equal_task=interval(others),
        uniform_at_equal_task=interval(uniforms),
        reduction_at_equal_task=interval([one - other for one, other in zip(uniforms, others, strict=True)]),
    )


def _ends(runs: Sequence[Curve], figure: Figure) -> Interval:
    return interval([figure(run.points[-1]) for run in runs])


def exchange(asked: str, answered: str) -> tuple[Message, ...]:
    """A question and its answer."""
    return Message(role="user", content=asked), Message(role="assistant", content=answered)


def write_rows(path: Path, rows: Sequence[Sequence[Message]]) -> Path:
    """A file of conversations, one a line, in the order given; returns its path."""
    lines = (json.dumps({"messages": [turn.model_dump() for turn in row]}, ensure_ascii=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells in columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def cell(interval: Interval | None, digits: int = 1) -> str:
    """A mean with its interval."""
    if interval is None:
        return "-"
    if interval.ci95 is None:
        return f"{interval.mean:.{digits}f}"
    low, high = interval.ci95
    return f"{interval.mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def reading_lines(found: Mapping[str, Mapping[str, Reading]], figures: Mapping[str, int]) -> list[str]:
    """A table of arms: of each figure, with so many digits, its value at the end and uniform's less the arm's at equal
    task score."""
    titles = ["run", *(f"{name} {place}" for name in figures for place in ("at end", "less at equal task"))]
    rows = [
        [
            run,
            *(
                cell(interval, digits)
                for name, digits in figures.items()
                for interval in (each[name].at_end, each[name].reduction_at_equal_task)
            ),
        ]
        for run, each in found.items()
    ]
    return aligned([titles, *rows])
