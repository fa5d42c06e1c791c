"""Changes from the base model: each figure of a run compared with the base model's on the same prompts or rows.

Not here: the figures (core.attacks.count, core.quality), whether a change is acceptable (core.gate).
"""

from collections.abc import Mapping

from core.attacks.count import value_range, values_by_prompt
from core.schemas.evaluation import Change, Evaluation, Figure
from core.stats import paired_change

_LOSS_SPAN = 20.0
"""Assumed range of losses in nats per token, for intervals: ln of a vocabulary of 256 million is less."""


def add_changes(base: Evaluation, tuned: Evaluation) -> Evaluation:
    """The run's evaluation, with a change for every figure that has values on the same prompts or rows as the base."""
    return tuned.model_copy(update={"figures": tuple(_with_change(figure, base, tuned) for figure in tuned.figures)})


def _with_change(figure: Figure, base: Evaluation, tuned: Evaluation) -> Figure:
    before, after = _values_of(figure, base), _values_of(figure, tuned)
    pairs = [(one, other) for key, other in after.items() if (one := before.get(key)) is not None and other is not None]
    if not pairs:
        return figure
    span = _LOSS_SPAN if figure.metric == "loss" else value_range(figure.metric)
    mean, low, high = paired_change(*zip(*pairs, strict=True), span=span)
    return figure.model_copy(update={"change": Change(value=mean, n=len(pairs), low=low, high=high)})


def _values_of(figure: Figure, evaluation: Evaluation) -> Mapping[int, float | None]:
    """Values by prompt or row; empty for a perplexity, which has no value of a single row."""
    rows = {row.row: row.value for row in evaluation.tasks if (row.suite, row.metric) == (figure.suite, figure.metric)}
    return rows or values_by_prompt(evaluation.answers, figure.suite, figure.metric, figure.judge)
