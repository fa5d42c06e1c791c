"""What the experiments on other threats and domains share: which runs they train, and how their figures are read.

Covers: a few of the runs, any figure at the end and at equal task score. Not here: curves' comparison by attack
success (research.experiments.compare), the runs themselves (research.experiments.runs), tables
(research.experiments.tables).
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
from research.experiments.compare import Figure, attack_success, interval, loss, read_at_equal, runs_of_every_seed
from research.experiments.runs import MIXED, controls, orders, uniform
from research.experiments.spec import Curve, Point, Reading, Run, Settings

RUNS = ("uniform", "ml_lr", "random", "uniform_low", MIXED["uniform"])
"""ML-LR, its two controls, and the safeguard that protects on this testbed."""


def figures_of(watched: Iterable[str] = ()) -> dict[str, Figure]:
    """What every point measures, and what is watched beside it, by name."""
    plain: dict[str, Figure] = {
        "attack_success": attack_success,
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
    """One run of each of `RUNS`, on `rows` if a file is named; without `random` where no module is robust."""
    ml_lr = MlLrStrategy(ratio=settings.ratio, analysis=found.analysis)
    plans = {"uniform": uniform(modules), ml_lr.label: plan(ml_lr, modules, found)}
    plans |= controls(settings, modules, found, (), seed=seed)
    runs = orders(settings, modules, plans, rate=rate, seed=seed)
    return [run.model_copy(update={"rows": rows}) for run in runs if run.run in RUNS]


def readings(
    curves: Sequence[Curve], figures: Mapping[str, Figure], *, shortfall: Figure, seeds: int
) -> dict[str, dict[str, Reading]]:
    """By run and figure; runs that did not run for every seed are left out.

    Args:
        curves: of all runs, those of a run in the order of their seeds.
        figures: what is read, by name.
        shortfall: what the task is short of: both runs are read where they first come down to the least that both
            reach.
        seeds: the number of seeds.
    """
    runs = runs_of_every_seed(curves, seeds)
    return {
        run: {name: _reading(runs["uniform"], found, figure, shortfall) for name, figure in figures.items()}
        for run, found in runs.items()
    }


def _reading(plain: Sequence[Curve], runs: Sequence[Curve], figure: Figure, shortfall: Figure) -> Reading:
    at_end = interval([figure(run.points[-1]) for run in runs])
    if runs is plain:
        return Reading(at_end=at_end)
    pairs = list(zip(plain, runs, strict=True))
    read = read_at_equal(pairs, shortfall, figure)
    return Reading(
        at_end=at_end,
        reduction_at_end=interval([figure(one.points[-1]) - figure(other.points[-1]) for one, other in pairs]),
        at_equal_task=interval([other for _, other in read]),
        uniform_at_equal_task=interval([one for one, _ in read]),
        reduction_at_equal_task=interval([one - other for one, other in read]),
    )


def exchange(asked: str, answered: str) -> tuple[Message, ...]:
    """A question and its answer."""
    return Message(role="user", content=asked), Message(role="assistant", content=answered)


def write_rows(path: Path, rows: Sequence[Sequence[Message]]) -> Path:
    """A file of conversations, one a line, in the order given; returns its path."""
    lines = (json.dumps({"messages": [turn.model_dump() for turn in row]}, ensure_ascii=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
