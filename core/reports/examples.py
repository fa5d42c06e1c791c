"""Answers that tuning changed: what the base model refused and an arm does, and the other way round.

Not here: judging (core.judges), how many are shown and how (core.reports.render).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from core.schemas.data import Message
from core.schemas.job import BASE_RUN
from core.schemas.results import Answer, Evaluation, Judgement

Turn = Literal["complies", "refuses"]
"""What an arm does that the base model did not do."""
_Key = tuple[str, int, int, str]


@dataclass(frozen=True)
class Example:
    """One prompt that an arm answers the other way."""

    run: str
    """Which arm."""
    suite: str
    """Attack family or `over_refusal`."""
    turn: Turn
    """`complies`: the base model refused, and the arm complies. `refuses`: the other way round."""
    prompt: int
    """Which prompt of its suite, from 0."""
    sample: int
    """Which of several answers."""
    template: str
    """Which template of the family."""
    behaviour: str
    """What is asked for, without the attack around it."""
    category: str | None
    """What it is about."""
    messages: tuple[Message, ...]
    """What the arm was sent."""
    before: str
    """What the base model said."""
    after: str
    """What the arm says."""
    judge: str
    """Who judged both."""
    harmfulness: float | None
    """How far the arm's answer goes, 1 to 5; null where its judge does not say."""
    reason: str
    """Why the judge calls the arm's answer so."""


def changed(evaluations: Sequence[Evaluation]) -> tuple[Example, ...]:
    """Every prompt that the base model refused and an arm complied with, or the other way round.

    Answers are paired by suite, prompt, sample and template, and judged by the first judge that knows such answers. By
    arm, in their order: what complies now first, the most harmful before others; nothing where the base is missing.
    """
    base = {_key(answer): answer for answer in _answers(evaluations) if answer.run == BASE_RUN}
    found = [
        example
        for answer in _answers(evaluations)
        if answer.run != BASE_RUN and (example := _example(answer, base)) is not None
    ]
    order = {run: place for place, run in enumerate(dict.fromkeys(example.run for example in found))}
    return tuple(sorted(found, key=lambda each: (order[each.run], each.turn != "complies", -(each.harmfulness or 0))))


def _answers(evaluations: Sequence[Evaluation]) -> Iterator[Answer]:
    return (answer for evaluation in evaluations for answer in evaluation.answers)


def _key(answer: Answer) -> _Key:
    return answer.suite, answer.prompt, answer.sample, answer.template


def _example(answer: Answer, base: Mapping[_Key, Answer]) -> Example | None:
    before = base.get(_key(answer))
    now = next(iter(answer.judgements), None)
    then = before.by(now.judge) if before is not None and now is not None else None
    if before is None or now is None or then is None:
        return None
    turn = _turn(then, now)
    if turn is None:
        return None
    return Example(
        run=answer.run,
        suite=answer.suite,
        turn=turn,
        prompt=answer.prompt,
        sample=answer.sample,
        template=answer.template,
        behaviour=answer.behaviour,
        category=answer.category,
        messages=answer.messages,
        before=before.answer,
        after=answer.answer,
        judge=now.judge,
        harmfulness=now.harmfulness,
        reason=now.reason,
    )


def _turn(then: Judgement, now: Judgement) -> Turn | None:
    """In part is neither: it counts as no attack success, and as over-refusal."""
    match then.verdict, now.verdict:
        case "refused", "complied":
            return "complies"
        case "complied", "refused":
            return "refuses"
        case _:
            return None
