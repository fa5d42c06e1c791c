"""Scores what a model has answered to validation rows against the rows' own answers.

Covers: exact match and ROUGE-L as figures with their intervals, rows that cannot be scored. Not here: asking
(core.quality.evaluate), what an answer says (core.quality.extract), the arithmetic of ROUGE-L (core.quality.rouge).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.quality.extract import extracted, way_of
from core.quality.rouge import rouge_l, words
from core.schemas.evaluation import Figure, TaskAnswer
from core.schemas.metrics import TASK, Metric
from core.schemas.quality import ExactMatch
from core.stats import mean_interval, wilson

Scored = tuple[tuple[Figure, ...], tuple[TaskAnswer, ...]]
"""A task's figures, and the rows or questions that they are made of."""


@dataclass(frozen=True)
class Answered:
    """A validation row and what the model said to it."""

    said: str | None
    """None where it was not asked, because its prompt leaves no room for an answer in the model's context."""
    reference: str
    """The row's own answer."""


def exact_match(run: str, task: ExactMatch, rows: Sequence[Answered]) -> Scored:
    """Share of answers that say exactly what the rows' own do, with its 95 % Wilson interval.

    Rows whose own answer has nothing to compare are undecided, as are those that were not asked. An answer with nothing
    to compare is wrong.
    """
    values = [_same(row, task) for row in rows]
    decided = [value for value in values if value is not None]
    rate = wilson(sum(decided), len(decided))
    return _scored(run, "exact_match", rows, values, rate)


def mean_rouge(run: str, rows: Sequence[Answered]) -> Scored:
    """Mean ROUGE-L F1 with its 95 % t interval. Rows whose own answer has no word are undecided, as are those that were
    not asked."""
    values = [
        None if row.said is None or not words(row.reference) else rouge_l(row.said, row.reference) for row in rows
    ]
    mean = mean_interval([value for value in values if value is not None], lowest=0.0, max_rate=1.0)
    return _scored(run, "rouge_l", rows, values, mean)


def _same(row: Answered, task: ExactMatch) -> bool | None:
    way = way_of(task.extract, row.reference)
    wanted = extracted(row.reference, way)
    if row.said is None or wanted is None:
        return None
    return extracted(row.said, way) == wanted


def _scored(
    run: str,
    metric: Metric,
    rows: Sequence[Answered],
    values: Sequence[float | None],
    interval: tuple[float, float, float],
) -> Scored:
    value, low, high = interval
    answers = tuple(_task_answers(run, metric, rows, values))
    undecided = len(rows) - len(answers)
    figure = Figure(
        run=run,
        suite=TASK,
        metric=metric,
        judge="none",
        value=value,
        n=len(answers),
        undecided=undecided,
        low=low,
        high=high,
    )
    return (figure,), answers


def _task_answers(
    run: str, metric: Metric, rows: Sequence[Answered], values: Sequence[float | None]
) -> Iterator[TaskAnswer]:
    for index, (row, value) in enumerate(zip(rows, values, strict=True)):
        if row.said is not None and value is not None:
            yield TaskAnswer(
                run=run,
                suite=TASK,
                metric=metric,
                row=index,
                answer=row.said,
                reference=row.reference,
                value=float(value),
            )
