"""Summary figures of a run: mean attack success rate over all families by one judge, and one task figure.

Not here: the figures themselves (core.attacks.count, core.quality), how they are shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from core.schemas.evaluation import Figure
from core.schemas.metrics import TASK, Metric
from core.schemas.results import Report

TASKS: Mapping[Metric, str] = {
    "exact_match": "exact match, %",
    "accuracy": "multiple-choice accuracy, %",
    "loss": "validation loss, nats per token",
}
"""Task metrics by preference: correctness of answers before their likelihood."""


@dataclass(frozen=True)
class Overall:
    """Attack success over all families that one judge decided on, with equal weights."""

    value: float
    """Mean of the rates."""
    low: float
    high: float
    """Means of the limits of their 95 % intervals. Families share prompts, so this interval is wider than needed and
    never too narrow."""
    worst: Figure
    """The family with the highest rate."""
    n: tuple[int, ...]
    """Number of decided answers of each family."""


def judge(report: Report) -> str | None:
    """The judge whose rates are shown: the job's first one that judged attacks; None without any."""
    judges = [figure.judge for figure in report.figures if figure.metric == "attack_success_rate"]
    first = report.spec.security.judges[0].label
    return first if first in judges else next(iter(judges), None)


def overall(report: Report, run: str) -> Overall | None:
    """Attack success over the families in which the shown judge decided at least one answer; None without any."""
    wanted = (run, "attack_success_rate", judge(report))
    rows = [each for each in report.figures if (each.run, each.metric, each.judge) == wanted and each.n]
    if not rows:
        return None
    return Overall(
        value=fmean(row.value for row in rows),
        low=fmean(row.low for row in rows),
        high=fmean(row.high for row in rows),
        worst=max(rows, key=lambda row: row.value),
        n=tuple(row.n for row in rows),
    )


def task_figure(report: Report, run: str) -> Figure | None:
    """The run's task figure: exact match or accuracy if the job measured one, else the validation loss."""
    for metric in TASKS:
        measured = [figure for figure in report.figures if figure.metric == metric and figure.n]
        suites = [figure.suite for figure in measured]
        suite = TASK if TASK in suites else next(iter(suites), None)
        if suite is not None:
            return next((each for each in measured if (each.suite, each.run) == (suite, run)), None)
    return None
