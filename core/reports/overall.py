"""What stands for an arm in a few figures: one judge, attack success over all families, one task figure.

Covers: which judge and which task figure that is, means over families. Not here: the figures themselves
(core.attacks.count, core.quality), how they are shown.
"""

from dataclasses import dataclass
from statistics import fmean

from core.schemas.metrics import TASK, Metric
from core.schemas.results import Figure, Report

TASKS: tuple[tuple[Metric, str], ...] = (
    ("exact_match", "exact match, %"),
    ("accuracy", "right answers, %"),
    ("loss", "validation loss, nats per token"),
)
"""Task figures, the first that was measured is drawn: what answers are worth before how likely they are."""


@dataclass(frozen=True)
class Point:
    """An arm's value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Overall:
    """Attack success over all families that one judge decided on: every family weighs the same."""

    mean: Point
    """The mean of the families' rates, and of the ends of their intervals: wider than it needs to be, because families
    share their prompts, and never too narrow for that."""
    worst: Figure
    """The family with the highest rate."""
    families: int
    """How many families."""
    n: tuple[int, ...]
    """Decided answers of each."""


def judge(report: Report) -> str | None:
    """Whose rates are drawn: the job's first judge; None where no attack was judged."""
    found = [figure.judge for figure in report.figures if figure.metric == "attack_success_rate"]
    first = report.spec.security.judges[0].label
    return first if first in found else next(iter(found), None)


def overall(report: Report, run: str) -> Overall | None:
    """Attack success over the families in which the drawn judge decided anything."""
    by = judge(report)
    found = [
        figure
        for figure in report.figures
        if (figure.run, figure.metric, figure.judge) == (run, "attack_success_rate", by) and figure.n
    ]
    if not found:
        return None
    mean = Point(fmean(row.value for row in found), fmean(row.low for row in found), fmean(row.high for row in found))
    return Overall(mean, max(found, key=lambda row: row.value), len(found), tuple(row.n for row in found))


def task_figure(report: Report, run: str) -> Figure | None:
    """The task figure that safety is held against: exact match or accuracy if measured, else the validation loss."""
    for metric, _ in TASKS:
        found = [figure for figure in report.figures if figure.metric == metric and figure.n]
        # Of several, the job's own rows, else the first benchmark.
        suite = TASK if any(figure.suite == TASK for figure in found) else next((each.suite for each in found), None)
        if suite is not None:
            return next((each for each in found if (each.suite, each.run) == (suite, run)), None)
    return None
