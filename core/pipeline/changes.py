"""What tuning changed: each figure of an arm against the base model's, on the prompts and rows that both answered.

Not here: the figures themselves (core.attacks.count, core.quality), whether a change is too much.
"""

from collections.abc import Mapping

from core.attacks.count import span, values
from core.schemas.results import Change, Evaluation, Figure
from core.stats import paired_change

_WIDEST_LOSS = 20.0
"""Nats per token that a loss may differ by where nothing is known: more than a vocabulary of 256 million has."""


def against(base: Evaluation, tuned: Evaluation) -> Evaluation:
    """The arm's evaluation with the change of every figure that can be paired with the base model's."""
    return tuned.model_copy(update={"figures": tuple(_changed(figure, base, tuned) for figure in tuned.figures)})


def _changed(figure: Figure, base: Evaluation, tuned: Evaluation) -> Figure:
    before, after = _values(figure, base), _values(figure, tuned)
    both = [(before[key], after[key]) for key in after if before.get(key) is not None and after[key] is not None]
    if not both:
        return figure
    widest = _WIDEST_LOSS if figure.metric == "loss" else span(figure.metric)
    firsts = [float(first) for first, _ in both if first is not None]
    seconds = [float(second) for _, second in both if second is not None]
    mean, low, high = paired_change(firsts, seconds, span=widest)
    return figure.model_copy(update={"change": Change(value=mean, n=len(both), low=low, high=high)})


def _values(figure: Figure, evaluation: Evaluation) -> Mapping[int, float | None]:
    """By prompt or row. Nothing for a perplexity: it is the loss, told in another way."""
    rows = {row.row: row.value for row in evaluation.tasks if (row.suite, row.metric) == (figure.suite, figure.metric)}
    return rows or values(evaluation.answers, figure.suite, figure.metric, figure.judge)
