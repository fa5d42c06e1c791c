"""Changes from the base model: each figure of a run compared with the base model's on the same prompts or rows.

Covers: the noise beside each change, which is the base model's own change between two measurements. Not here: the
figures (core.attacks.count, core.quality), whether a change is acceptable (core.gate).
"""

from collections.abc import Mapping
from typing import TypeVar

from core.attacks.count import value_range, values_by_prompt
from core.schemas.evaluation import Change, Evaluation, Figure, Noise, Verdict
from core.stats import paired_change

Key = TypeVar("Key")
Value = TypeVar("Value")
_LOSS_SPAN = 20.0
"""Assumed range of losses in nats per token, for intervals: ln of a vocabulary of 256 million is less."""


def add_changes(base: Evaluation, tuned: Evaluation, again: Evaluation | None = None) -> Evaluation:
    """The run's evaluation, with a change for every figure that has values on the same prompts or rows as the base.

    `again` is a second evaluation of the base model; changes then have their noise.
    """
    figures = tuple(_with_change(figure, base, tuned, again) for figure in tuned.figures)
    return tuned.model_copy(update={"figures": figures})


def _with_change(figure: Figure, base: Evaluation, tuned: Evaluation, again: Evaluation | None) -> Figure:
    change = _compare(figure, base, tuned)
    if change is not None and again is not None:
        change = change.model_copy(update={"noise": _measure_noise(figure, base, again)})
    return figure.model_copy(update={"change": change})


def _compare(figure: Figure, before: Evaluation, after: Evaluation) -> Change | None:
    """The change of a figure over the prompts or rows with both values; None without any."""
    pairs = _pairs(_values_of(figure, before), _values_of(figure, after))
    if not pairs:
        return None
    span = _LOSS_SPAN if figure.metric == "loss" else value_range(figure.metric)
    mean, low, high = paired_change(*zip(*pairs, strict=True), span=span)
    return Change(value=mean, n=len(pairs), low=low, high=high)


def _measure_noise(figure: Figure, base: Evaluation, again: Evaluation) -> Noise | None:
    difference = _compare(figure, base, again)
    if difference is None:
        return None
    pairs = _pairs(_verdicts_of(figure, base), _verdicts_of(figure, again))
    return Noise(
        **difference.model_dump(exclude={"noise"}),
        compared=len(pairs),
        differing=sum(one != other for one, other in pairs),
    )


def _pairs(before: Mapping[Key, Value | None], after: Mapping[Key, Value | None]) -> list[tuple[Value, Value]]:
    """Both values of each key that has two."""
    both = ((before.get(key), other) for key, other in after.items())
    return [(one, other) for one, other in both if one is not None and other is not None]


def _values_of(figure: Figure, evaluation: Evaluation) -> Mapping[int, float | None]:
    """Values by prompt or row; empty for a perplexity, which has no value of a single row."""
    rows = _rows_of(figure, evaluation)
    return rows or values_by_prompt(evaluation.answers, figure.suite, figure.metric, figure.judge)


def _rows_of(figure: Figure, evaluation: Evaluation) -> Mapping[int, float]:
    return {row.row: row.value for row in evaluation.tasks if (row.suite, row.metric) == (figure.suite, figure.metric)}


def _verdicts_of(figure: Figure, evaluation: Evaluation) -> Mapping[tuple[int, int], Verdict | float]:
    """Verdicts by prompt and sample, or values by row."""
    if rows := _rows_of(figure, evaluation):
        return {(row, 0): value for row, value in rows.items()}
    answers = [(answer, answer.by(figure.judge)) for answer in evaluation.answers if answer.suite == figure.suite]
    return {(answer.prompt, answer.sample): judged.verdict for answer, judged in answers if judged is not None}
