"""Attacks a model, judges its answers, and counts: the security half of an evaluation.

Not here: templates (attacks), rules (judge), prompts (prompts), task figures (core.quality).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from core.lm.generate import Tick, answer
from core.lm.load import BaseModel
from core.security import judge as rules
from core.security.attacks import build
from core.security.judge import HARM_JUDGE, REFUSAL_JUDGE
from core.spec.data import Message
from core.spec.results import Answer, Figure, Metric, Suite
from core.spec.security import PromptSet, SecuritySpec
from core.stats import mean_interval, wilson


@dataclass(frozen=True)
class _Question:
    suite: Suite
    template: str
    behaviour: str
    messages: tuple[Message, ...]


def evaluate(
    base: BaseModel, model: nn.Module, prompts: PromptSet, spec: SecuritySpec, *, arm: str, tick: Tick
) -> tuple[Answer, ...]:
    """Every raw answer of `model` to the attacks and to the safe look-alikes, judged."""
    questions = _questions(prompts, spec)
    texts = answer(
        base, model, [question.messages for question in questions], max_new_tokens=spec.max_new_tokens, tick=tick
    )
    return tuple(_judged(arm, question, text) for question, text in zip(questions, texts, strict=True))


def figures(arm: str, answers: Sequence[Answer], spec: SecuritySpec) -> tuple[Figure, ...]:
    """Attack success and harmfulness of each family, and over-refusal, with Wilson and t intervals.

    What the judge could not decide, and empty answers, are in no rate: they are counted in `undecided`.
    """
    found: list[Figure] = []
    for family in spec.attacks:
        rows = [row for row in answers if row.suite == family]
        found.append(_rate(arm, rows, family, "attack_success_rate", "complied"))
        found.append(_harmfulness(arm, rows, family))
    safe = [row for row in answers if row.suite == "over_refusal"]
    return (*found, _rate(arm, safe, "over_refusal", "over_refusal_rate", "refused"))


def _questions(prompts: PromptSet, spec: SecuritySpec) -> list[_Question]:
    attacks = [
        _Question(family, attack.template, attack.behaviour, attack.messages)
        for family in spec.attacks
        for attack in build(family, prompts.evaluation.harmful, spec.system_prompt)
    ]
    safe = [
        _Question("over_refusal", attack.template, attack.behaviour, attack.messages)
        for attack in build("direct", prompts.evaluation.safe, spec.system_prompt)
    ]
    return attacks + safe


def _judged(arm: str, question: _Question, text: str) -> Answer:
    judgement = rules.judge(question.behaviour, text)
    return Answer(
        arm=arm,
        suite=question.suite,
        template=question.template,
        behaviour=question.behaviour,
        messages=question.messages,
        answer=text,
        verdict=judgement.verdict,
        harmfulness=judgement.harmfulness,
        reason=judgement.reason,
    )


def _rate(arm: str, rows: Sequence[Answer], suite: Suite, metric: Metric, counted: str) -> Figure:
    decided = [row for row in rows if row.verdict in ("refused", "complied")]
    rate = wilson(sum(row.verdict == counted for row in decided), len(decided))
    return _figure(arm, rows, suite, metric=metric, judge=REFUSAL_JUDGE, value=rate, n=len(decided))


def _harmfulness(arm: str, rows: Sequence[Answer], suite: Suite) -> Figure:
    scores = [row.harmfulness for row in rows if row.harmfulness is not None]
    mean = mean_interval(scores, lowest=1, highest=5)
    return _figure(arm, rows, suite, metric="harmfulness", judge=HARM_JUDGE, value=mean, n=len(scores))


def _figure(
    arm: str,
    rows: Sequence[Answer],
    suite: Suite,
    *,
    metric: Metric,
    judge: str,
    value: tuple[float, float, float],
    n: int,
) -> Figure:
    mean, low, high = value
    return Figure(
        arm=arm,
        suite=suite,
        metric=metric,
        judge=judge,
        value=mean,
        n=n,
        undecided=len(rows) - n,
        low=low,
        high=high,
    )
