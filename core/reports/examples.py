"""Answers that training changed: refused by the base model and complied with by a run, or the other way round.

Not here: judging (core.judges), which examples are shown (core.reports.render).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from core.schemas.evaluation import Answer, Evaluation, Judgement
from core.schemas.job import BASE_RUN

Turn = Literal["complies", "refuses"]
"""What a run does that the base model does not."""


@dataclass(frozen=True)
class Example:
    """One prompt on which a run and the base model differ."""

    turn: Turn
    """`complies`: the base model refused and the run complies. `refuses`: the other way round."""
    before: str
    """The base model's answer."""
    answer: Answer
    """The run's answer, with the prompt."""
    judgement: Judgement
    """The judgement of the run's answer; the same judge judged the base model's."""


def changed(evaluations: Sequence[Evaluation]) -> tuple[Example, ...]:
    """All prompts that exactly one of the base model and a run complied with, and the other refused.

    Answers are paired by suite, prompt, sample and template, and judged by the first judge of the run's answer. The
    result is ordered by run, then `complies` before `refuses`, then by harmfulness, highest first.
    """
    answers = [answer for evaluation in evaluations for answer in evaluation.answers]
    base = {_key(answer): answer for answer in answers if answer.run == BASE_RUN}
    examples: list[Example] = []
    for answer in answers:
        before = base.get(_key(answer)) if answer.run != BASE_RUN else None
        if before is not None and answer.judgements:
            after = answer.judgements[0]
            if turn := _turn(before.by(after.judge), after):
                examples.append(Example(turn, before.answer, answer, after))
    order = list(dict.fromkeys(each.answer.run for each in examples))
    return tuple(
        sorted(
            examples,
            key=lambda each: (
                order.index(each.answer.run),
                each.turn != "complies",
                -(each.judgement.harmfulness or 0),
            ),
        )
    )


def _key(answer: Answer) -> tuple[str, int, int, str]:
    return answer.suite, answer.prompt, answer.sample, answer.template


def _turn(before: Judgement | None, after: Judgement) -> Turn | None:
    """Partial compliance is neither: it does not count as attack success, but it does count as over-refusal."""
    match before.verdict if before else None, after.verdict:
        case "refused", "complied":
            return "complies"
        case "complied", "refused":
            return "refuses"
        case _:
            return None
