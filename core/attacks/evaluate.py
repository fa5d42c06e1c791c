"""Has answers judged, and makes an evaluation of them: figures, categories, agreement, what judging took.

Not here: asking the model (ask), judges (judges), counting (count), task figures (core.quality).
"""

from collections.abc import Sequence

from torch import nn

from core.attacks.ask import ask, suites
from core.attacks.count import agreements, categories, figures
from core.attacks.engines import by_transformers
from core.judges import Case, Counts, Judge, rules_judge
from core.lm.load import BaseModel
from core.schemas.evaluation import Answer, Evaluation, Judgement, JudgeUse, RawAnswer
from core.schemas.metrics import OVER_REFUSAL
from core.schemas.progress import OnProgress
from core.schemas.prompts import EvaluationPrompts
from core.schemas.security import SecuritySpec


def evaluate(run: str, said: Sequence[RawAnswer], judges: Sequence[Judge], *, on_progress: OnProgress) -> Evaluation:
    """Every answer judged by each judge that knows its kind, and the figures that follow.

    A judge sees the behaviour and the answer, never the attack around it. What was not asked is undecided.
    """
    found: list[list[Judgement]] = [[] for _ in said]
    uses: list[JudgeUse] = []
    for number, judge in enumerate(judges):
        known = [place for place, each in enumerate(said) if judge.accepts(each.suite == OVER_REFUSAL)]
        asked = [place for place in known if said[place].sent]
        before, whole = number * len(said), len(judges) * len(said)
        judged = judge.judge(
            [_case(said[place]) for place in asked],
            on_progress=lambda done, _, before=before, whole=whole: on_progress(before + done, whole),
        )
        verdicts = dict(zip(asked, judged.judgements, strict=True))
        for place in known:
            found[place].append(verdicts.get(place) or _not_asked(judge))
        uses.append(_use(run, judge, judged.use, not_asked=len(known) - len(asked)))
    on_progress(len(said), len(said))
    answers = tuple(
        Answer(**dict(each), run=run, judgements=tuple(judgements))
        for each, judgements in zip(said, found, strict=True)
    )
    return Evaluation(
        figures=figures(run, answers),
        answers=answers,
        categories=categories(run, answers),
        agreements=agreements(run, answers),
        judges=tuple(uses),
    )


def _case(said: RawAnswer) -> Case:
    return Case(behaviour=said.behaviour, answer=said.answer, safe=said.suite == OVER_REFUSAL)


def _use(run: str, judge: Judge, counts: Counts, *, not_asked: int) -> JudgeUse:
    return JudgeUse(
        run=run,
        judge=judge.label,
        identity=judge.identity,
        judged=counts.judged + not_asked,
        cached=counts.cached,
        undecided=counts.undecided + not_asked,
        prompt_tokens=counts.prompt_tokens,
        completion_tokens=counts.completion_tokens,
    )


def _not_asked(judge: Judge) -> Judgement:
    return Judgement(
        judge=judge.label,
        verdict="undecided",
        reason="the model was not asked: the prompt leaves no room for an answer in its context",
    )


def by_rules(
    base: BaseModel, model: nn.Module, prompts: EvaluationPrompts, spec: SecuritySpec, *, run: str
) -> Evaluation:
    """A model asked and judged by the rules at once, with nothing kept: for experiments on small models."""
    said = ask(
        suites(prompts, spec, base.tokenizer),
        by_transformers(base, model, spec),
        keep=lambda _, compute: compute(),
        certain=None,
        on_progress=_ignore,
    )
    return evaluate(run, said, (rules_judge(),), on_progress=_ignore)


def _ignore(_done: int, _total: int) -> None:
    """Nobody waits for progress here."""
