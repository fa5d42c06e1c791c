"""Answers are judged by every judge that accepts them, from behaviour and answer alone."""

from collections.abc import Sequence

import pytest

from core.attacks.evaluate import evaluate, evaluate_by_rules
from core.attacks.prompts import choose_prompts
from core.judges.interface import Case, Counts, Judgements
from core.judges.rules import judge, rules_judge
from core.lm.load import BaseModel
from core.schemas.attacks import Direct, MultiTurn, Prefill
from core.schemas.data import Message
from core.schemas.evaluation import Judgement, RawAnswer
from core.schemas.progress import OnProgress
from core.schemas.security import SecuritySpec
from tests.core.helpers import ignore

SPEC = SecuritySpec(attacks=(Direct(), MultiTurn(), Prefill()), max_prompts=4, max_new_tokens=12)


class Scripted:
    """A judge that accepts attacks only and records its cases."""

    label = identity = "scripted"

    def __init__(self) -> None:
        self.seen: list[Case] = []

    def accepts(self, safe: bool) -> bool:
        return not safe

    def is_certain(self, _behaviour: str, _so_far: str) -> bool:
        return True

    def judge(self, cases: Sequence[Case], *, on_progress: OnProgress) -> Judgements:
        self.seen += cases
        on_progress(len(cases), len(cases))
        found = tuple(Judgement(judge=self.label, verdict="complied", reason="always") for _ in cases)
        return Judgements(found, Counts(judged=len(cases), cached=1, prompt_tokens=10, completion_tokens=2))


def said(suite: str, prompt: int, answer: str, *, sent: bool = True) -> RawAnswer:
    secret = Message(role="user", content="the attack's own words")
    return RawAnswer(
        suite=suite,
        prompt=prompt,
        template="plain",
        behaviour=f"Do {prompt}.",
        category="odd",
        messages=(secret,),
        answer=answer,
        sent=sent,
    )


SAID = (
    said("direct", 0, "Sure, here is how: first do this, then do that."),
    said("direct", 1, "", sent=False),
    said("direct", 2, "I'm sorry, but I can't help with that."),
    said("over_refusal", 0, "I'm sorry, but I can't help with that."),
)


def test_a_judge_sees_behaviour_and_answer_of_accepted_and_sent_prompts() -> None:
    scripted = Scripted()
    found = evaluate("x", SAID, (rules_judge(), scripted), on_progress=ignore)
    assert scripted.seen == [Case("Do 0.", SAID[0].answer), Case("Do 2.", SAID[2].answer)]
    assert [[each.judge for each in answer.judgements] for answer in found.answers] == [
        ["rules", "scripted"],
        ["rules", "scripted"],
        ["rules", "scripted"],
        ["rules"],
    ]
    assert {answer.run for answer in found.answers} == {"x"}


def test_a_prompt_that_was_not_sent_is_undecided_with_the_reason() -> None:
    found = evaluate("x", SAID, (rules_judge(), Scripted()), on_progress=ignore)
    lost = found.answers[1].judgements
    assert [each.verdict for each in lost] == ["undecided", "undecided"]
    assert "no room" in lost[0].reason
    attack = {figure.judge: figure for figure in found.figures if figure.metric == "attack_success_rate"}
    assert [(figure.value, figure.n, figure.undecided) for figure in attack.values()] == [(0.5, 2, 1), (1.0, 2, 1)]
    rules, scripted = found.judges
    assert (rules.judged, rules.undecided, rules.cached) == (4, 1, 0)
    assert (scripted.judged, scripted.undecided, scripted.cached) == (3, 1, 1)
    assert (scripted.prompt_tokens, scripted.completion_tokens) == (10, 2)


def test_an_evaluation_has_categories_agreement_and_over_refusal() -> None:
    found = evaluate("x", SAID, (rules_judge(), Scripted()), on_progress=ignore)
    assert [(rate.category, rate.judge) for rate in found.categories] == [("odd", "rules"), ("odd", "scripted")]
    assert [agreement.judges for agreement in found.agreements] == [("rules", "scripted")]
    over = [figure for figure in found.figures if figure.metric == "over_refusal_rate"]
    assert [(figure.value, figure.judge) for figure in over] == [(1.0, "rules")]


def test_progress_may_stop_judging_and_never_decreases() -> None:
    told: list[tuple[int, int]] = []
    evaluate("x", SAID, (rules_judge(), Scripted()), on_progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1]
    fractions = [done / total for done, total in told]
    assert fractions == sorted(fractions)

    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate("x", SAID, (rules_judge(),), on_progress=stop)


def test_the_evaluation_of_a_real_model_is_deterministic(base: BaseModel) -> None:
    prompts = choose_prompts(SPEC, base.folder).evaluation
    found = evaluate_by_rules(base, base.model, prompts, SPEC, run="base")
    assert found == evaluate_by_rules(base, base.model, prompts, SPEC, run="base")
    suites = ("direct", "multi_turn", "prefill", "over_refusal")
    assert [row.suite for row in found.answers] == [suite for suite in suites for _ in range(4)]
    for suite in suites[:3]:
        assert [row.behaviour for row in found.answers if row.suite == suite] == [each.text for each in prompts.harmful]
    for row in found.answers:
        ruling = judge(row.behaviour, row.answer)
        (judgement,) = row.judgements
        assert (judgement.verdict, judgement.reason) == (ruling.verdict, ruling.reason)
    refused = [row for row in found.answers if row.suite == "direct" and row.judgements[0].verdict == "refused"]
    assert len(refused) == 4


def test_judges_see_the_answer_after_the_thinking_and_the_whole_text_is_kept() -> None:
    text = "<think>First do this, then do that. That is harm.</think>\n\nI'm sorry, but I can't help with that."
    scripted = Scripted()
    found = evaluate("x", (said("direct", 0, text),), (rules_judge(), scripted), on_progress=ignore)
    assert scripted.seen == [Case("Do 0.", "I'm sorry, but I can't help with that.")]
    assert found.answers[0].answer == text
    assert found.answers[0].judgements[0].verdict == "refused"


def test_an_answer_that_was_cut_inside_its_thinking_is_undecided_by_every_judge() -> None:
    scripted = Scripted()
    cut = (said("direct", 0, "<think>\nFirst do this, then"), said("over_refusal", 0, "<think>\nFirst do this, then"))
    found = evaluate("x", cut, (rules_judge(), scripted), on_progress=ignore)
    assert scripted.seen == []
    assert [each.verdict for answer in found.answers for each in answer.judgements] == ["undecided"] * 3
    assert all("max_new_tokens" in each.reason for answer in found.answers for each in answer.judgements)
    assert [(figure.n, figure.undecided) for figure in found.figures] == [(0, 1)] * 3
    assert [(use.judged, use.undecided) for use in found.judges] == [(2, 2), (1, 1)]
