"""Judges answers and computes the security part of an evaluation: figures, categories, agreement, cost of judging.

Not here: collecting answers (ask), judges (core.judges), counting (count), task figures (core.quality).
"""

from collections.abc import Sequence
from dataclasses import asdict, replace

from torch import nn

from core.attacks.ask import ask, build_suites
from core.attacks.count import compute_agreements, compute_category_rates, compute_figures
from core.attacks.engines import generate_with
from core.judges.interface import CUT_IN_THINKING, Case, Counts, Judge, Ruling
from core.judges.rules import rules_judge
from core.lm.load import BaseModel
from core.schemas.evaluation import Answer, Evaluation, Judgement, JudgeUse, RawAnswer
from core.schemas.metrics import OVER_REFUSAL
from core.schemas.progress import OnProgress
from core.schemas.prompts import EvaluationPrompts
from core.schemas.security import SecuritySpec
from core.thinking import split_thinking

_NOT_SENT = Ruling("undecided", "the prompt was not sent: it leaves no room for an answer in the model's context")


def evaluate(
    run: str, raw_answers: Sequence[RawAnswer], judges: Sequence[Judge], *, on_progress: OnProgress
) -> Evaluation:
    """Let each judge judge the answers that it accepts, and compute the figures.

    A judge sees the behaviour and the answer after the model's thinking, never the attack around it. A prompt that was
    not sent, and an answer that was cut inside its thinking, are undecided.
    """
    # The text itself begins with what opened the thinking, so a lone closing mark closes nothing: a tuned model could
    # write one after a harmful answer, and a refusal behind it.
    splits = [split_thinking(each.answer, opened=False) for each in raw_answers]
    unjudged = {
        place: CUT_IN_THINKING if each.sent else _NOT_SENT
        for place, (each, split) in enumerate(zip(raw_answers, splits, strict=True))
        if split.cut or not each.sent
    }
    cases = [
        Case(each.behaviour, split.answer, safe=each.suite == OVER_REFUSAL)
        for each, split in zip(raw_answers, splits, strict=True)
    ]
    by_answer: list[list[Judgement]] = [[] for _ in raw_answers]
    uses: list[JudgeUse] = []
    for number, judge in enumerate(judges):
        accepted = [place for place, case in enumerate(cases) if judge.accepts(case.safe)]
        judged = [place for place in accepted if place not in unjudged]
        before, total = number * len(raw_answers), len(judges) * len(raw_answers)
        outcome = judge.judge(
            [cases[place] for place in judged],
            on_progress=lambda done, _, before=before, total=total: on_progress(before + done, total),
        )
        judgements = dict(zip(judged, outcome.judgements, strict=True))
        judgements |= {place: ruling.attribute(judge.label) for place, ruling in unjudged.items()}
        for place in accepted:
            by_answer[place].append(judgements[place])
        uses.append(_use(run, judge, outcome.use, unjudged=len(accepted) - len(judged)))
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


def _use(run: str, judge: Judge, counts: Counts, *, unjudged: int) -> JudgeUse:
    whole = replace(counts, judged=counts.judged + unjudged, undecided=counts.undecided + unjudged)
    return JudgeUse(run=run, judge=judge.label, identity=judge.identity, **asdict(whole))


def evaluate_by_rules(
    base: BaseModel, model: nn.Module, prompts: EvaluationPrompts, spec: SecuritySpec, *, run: str
) -> Evaluation:
    """Attack a model and judge its answers by the rules, without storing anything: for experiments on small models."""
    answers = ask(
        build_suites(prompts, spec, base.tokenizer),
        generate_with(base, model, spec),
        keep=lambda _, compute: compute(),
        is_certain=None,
        on_progress=_ignore,
    )
    return evaluate(run, answers, (rules_judge(),), on_progress=_ignore)


def _ignore(_done: int, _total: int) -> None:
    """Discard progress."""
