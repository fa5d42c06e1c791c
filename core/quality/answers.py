"""Scores a model's answers to validation rows against the rows' own answers.

Covers: exact match and ROUGE-L as figures with intervals, rows that cannot be scored. Not here: generating answers
(core.quality.evaluate), extracting numbers and choices (core.quality.extract), the formula of ROUGE-L
(core.quality.rouge).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.quality.extract import extract, resolve_extraction
from core.quality.rouge import rouge_l, split_words
from core.schemas.evaluation import Figure, TaskAnswer
from core.schemas.metrics import TASK, Metric
from core.schemas.quality import ExactMatch
from core.stats import mean_interval, wilson

TaskScores = tuple[tuple[Figure, ...], tuple[TaskAnswer, ...]]
"""The figures of a task, and the scored rows or questions."""


@dataclass(frozen=True)
class AnsweredRow:
    """A validation row and the model's answer to it."""

    answer: str | None
    """None if the row was not sent, because its prompt leaves no room for an answer in the model's context."""
    reference: str
    """The row's own answer."""


def score_exact_match(run: str, task: ExactMatch, rows: Sequence[AnsweredRow]) -> TaskScores:
    """Compute the share of exact answers with its 95 % Wilson interval.

    Rows that were not sent, or whose own answer contains nothing to compare, are undecided. An answer without anything
    to compare is wrong.
    """
    values = [_matches(row, task) for row in rows]
    decided = [value for value in values if value is not None]
    return _scores(run, "exact_match", rows, values, wilson(sum(decided), len(decided)))


def score_rouge(run: str, rows: Sequence[AnsweredRow]) -> TaskScores:
    """Compute the mean ROUGE-L F1 with its 95 % t interval.

    Rows that were not sent, or whose own answer has no word, are undecided.
    """
    values = [
        None if row.answer is None or not split_words(row.reference) else rouge_l(row.answer, row.reference)
        for row in rows
    ]
    mean = mean_interval([value for value in values if value is not None], minimum=0.0, maximum=1.0)
    return _scores(run, "rouge_l", rows, values, mean)


def _matches(row: AnsweredRow, task: ExactMatch) -> bool | None:
    kind = resolve_extraction(task.extract, row.reference)
    expected = extract(row.reference, kind)
    if row.answer is None or expected is None:
        return None
    return extract(row.answer, kind) == expected


def _scores(
    run: str,
    metric: Metric,
    rows: Sequence[AnsweredRow],
    values: Sequence[float | None],
    interval: tuple[float, float, float],
) -> TaskScores:
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
    run: str, metric: Metric, rows: Sequence[AnsweredRow], values: Sequence[float | None]
) -> Iterator[TaskAnswer]:
    for index, (row, value) in enumerate(zip(rows, values, strict=True)):
        if row.answer is not None and value is not None:
            yield TaskAnswer(
                run=run,
                suite=TASK,
                metric=metric,
                row=index,
                answer=row.answer,
                reference=row.reference,
                value=float(value),
            )
