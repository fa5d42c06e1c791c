"""Scores a model's answers to validation rows against the rows' own answers.

Covers: exact match and ROUGE-L as figures with intervals, rows that cannot be scored. Not here: generating answers
(core.quality.evaluate), extracting numbers and choices (core.quality.extract), the formula of ROUGE-L
(core.quality.rouge).
"""

from collections.abc import Sequence
from typing import NamedTuple

from core.quality.extract import extract, resolve_extraction
from core.quality.rouge import rouge_l, split_words
from core.schemas.evaluation import Figure, TaskAnswer
from core.schemas.metrics import TASK, Metric
from core.schemas.quality import ExactMatch
from core.stats import mean_interval, wilson
from core.thinking import split_thinking

TaskScores = tuple[tuple[Figure, ...], tuple[TaskAnswer, ...]]
"""The figures of a task, and the scored rows or questions."""


class AnsweredRow(NamedTuple):
    """A validation row or question, and the model's answer to it."""

    answer: str | None
    """None if the prompt was not sent, because it leaves no room for an answer in the model's context."""
    reference: str
    """The correct answer: the row's own, or a letter."""

    @property
    def final(self) -> str | None:
        """The answer after the model's thinking; None if there is none, because it was not sent or was cut there."""
        if self.answer is None:
            return None
        split = split_thinking(self.answer, opened=False)
        return None if split.cut else split.answer


def score_exact_match(run: str, task: ExactMatch, rows: Sequence[AnsweredRow]) -> TaskScores:
    """Compute the share of exact answers with its 95 % Wilson interval.

    Rows that were not sent, whose answer was cut inside the model's thinking, or whose own answer contains nothing to
    compare, are undecided. An answer without anything to compare is wrong.
    """
    return score_rate(run, TASK, "exact_match", rows, [_matches(row, task) for row in rows])


def score_rouge(run: str, rows: Sequence[AnsweredRow]) -> TaskScores:
    """Compute the mean ROUGE-L F1 with its 95 % t interval.

    Rows that were not sent, whose answer was cut inside the model's thinking, or whose own answer has no word, are
    undecided.
    """
    values = [
        None if row.final is None or not split_words(row.reference) else rouge_l(row.final, row.reference)
        for row in rows
    ]
    mean = mean_interval([value for value in values if value is not None], minimum=0.0, maximum=1.0)
    return _scores(run, TASK, "rouge_l", rows, values, interval=mean)


def score_rate(
    run: str, suite: str, metric: Metric, rows: Sequence[AnsweredRow], values: Sequence[bool | None]
) -> TaskScores:
    """Compute the share of correct answers with its 95 % Wilson interval; rows whose value is None are undecided."""
    decided = [value for value in values if value is not None]
    return _scores(run, suite, metric, rows, values, interval=wilson(sum(decided), len(decided)))


def _matches(row: AnsweredRow, task: ExactMatch) -> bool | None:
    kind = resolve_extraction(task.extract, row.reference)
    expected = extract(row.reference, kind)
    if row.final is None or expected is None:
        return None
    return extract(row.final, kind) == expected


def _scores(
    run: str,
    suite: str,
    metric: Metric,
    rows: Sequence[AnsweredRow],
    values: Sequence[float | None],
    *,
    interval: tuple[float, float, float],
) -> TaskScores:
    answers = tuple(
        TaskAnswer(
            run=run, suite=suite, metric=metric, row=index, answer=answer, reference=reference, value=float(value)
        )
        for index, ((answer, reference), value) in enumerate(zip(rows, values, strict=True))
        if answer is not None and value is not None
    )
    value, low, high = interval
    n, undecided = len(answers), len(rows) - len(answers)
    figure = Figure(
        run=run, suite=suite, metric=metric, judge="none", value=value, n=n, undecided=undecided, low=low, high=high
    )
    return (figure,), answers
