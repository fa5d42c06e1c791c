"""Judges answers and computes the security part of an evaluation: figures, categories, agreement, cost of judging.

Not here: collecting answers (ask), judges (core.judges), counting (count), task figures (core.quality).
"""

from collections.abc import Sequence

from torch import nn

from core.attacks.ask import ask, build_suites
from core.attacks.count import compute_agreements, compute_category_rates, compute_figures
from core.attacks.engines import transformers_engine
from core.judges import Case, Counts, Judge, rules_judge
from core.lm.load import BaseModel
from core.schemas.evaluation import Answer, Evaluation, Judgement, JudgeUse, RawAnswer
from core.schemas.metrics import OVER_REFUSAL
from core.schemas.progress import OnProgress
from core.schemas.prompts import EvaluationPrompts
from core.schemas.security import SecuritySpec


def evaluate(
    run: str, raw_answers: Sequence[RawAnswer], judges: Sequence[Judge], *, on_progress: OnProgress
) -> Evaluation:
    """Let each judge judge the answers that it accepts, and compute the figures.

    A judge sees the behaviour and the answer, never the attack around it. A prompt that was not sent is undecided.
    """
    by_answer: list[list[Judgement]] = [[] for _ in raw_answers]
    uses: list[JudgeUse] = []
    for number, judge in enumerate(judges):
        accepted = [place for place, each in enumerate(raw_answers) if judge.accepts(each.suite == OVER_REFUSAL)]
        sent = [place for place in accepted if raw_answers[place].sent]
        before, total = number * len(raw_answers), len(judges) * len(raw_answers)
        outcome = judge.judge(
            [_case(raw_answers[place]) for place in sent],
            on_progress=lambda done, _, before=before, total=total: on_progress(before + done, total),
        )
        judgements = dict(zip(sent, outcome.judgements, strict=True))
        for place in accepted:
            by_answer[place].append(judgements.get(place) or _not_sent(judge))
        uses.append(_use(run, judge, outcome.use, not_sent=len(accepted) - len(sent)))
    on_progress(len(raw_answers), len(raw_answers))
    answers = tuple(
        Answer(**dict(each), run=run, judgements=tuple(judgements))
        for each, judgements in zip(raw_answers, by_answer, strict=True)
    )
    return Evaluation(
        figures=compute_figures(run, answers),
        answers=answers,
        categories=compute_category_rates(run, answers),
        agreements=compute_agreements(run, answers),
        judges=tuple(uses),
    )


def _case(answer: RawAnswer) -> Case:
    return Case(behaviour=answer.behaviour, answer=answer.answer, safe=answer.suite == OVER_REFUSAL)


def _use(run: str, judge: Judge, counts: Counts, *, not_sent: int) -> JudgeUse:
    return JudgeUse(
        run=run,
        judge=judge.label,
        identity=judge.identity,
        judged=counts.judged + not_sent,
        cached=counts.cached,
        undecided=counts.undecided + not_sent,
        prompt_tokens=counts.prompt_tokens,
        completion_tokens=counts.completion_tokens,
    )


def _not_sent(judge: Judge) -> Judgement:
    return Judgement(
        judge=judge.label,
        verdict="undecided",
        reason="the prompt was not sent: it leaves no room for an answer in the model's context",
    )


def evaluate_by_rules(
    base: BaseModel, model: nn.Module, prompts: EvaluationPrompts, spec: SecuritySpec, *, run: str
) -> Evaluation:
    """Attack a model and judge its answers by the rules, without storing anything: for experiments on small models."""
    answers = ask(
        build_suites(prompts, spec, base.tokenizer),
        transformers_engine(base, model, spec),
        keep=lambda _, compute: compute(),
        is_certain=None,
        on_progress=_ignore,
    )
    return evaluate(run, answers, (rules_judge(),), on_progress=_ignore)


def _ignore(_done: int, _total: int) -> None:
    """Discard progress."""
