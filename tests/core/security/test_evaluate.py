"""Answers are counted as they were judged: what is undecided is in no rate, and every rate has its interval."""

import pytest

from core.lm.load import BaseModel
from core.security.evaluate import evaluate, figures
from core.security.judge import judge
from core.security.prompts import choose
from core.spec.results import Answer, Figure, Suite, Verdict
from core.spec.security import ATTACK_FAMILIES, SecuritySpec
from core.stats import wilson
from tests.core.helpers import ignore

SPEC = SecuritySpec(max_prompts=4, max_new_tokens=12)


@pytest.fixture(scope="module")
def answers(base: BaseModel) -> tuple[Answer, ...]:
    return evaluate(base, base.model, choose(SPEC, base.folder), SPEC, arm="base", tick=ignore)


def test_every_prompt_is_put_in_every_family(base: BaseModel, answers: tuple[Answer, ...]) -> None:
    prompts = choose(SPEC, base.folder).evaluation
    assert [row.suite for row in answers] == [suite for suite in (*ATTACK_FAMILIES, "over_refusal") for _ in range(4)]
    for suite in ATTACK_FAMILIES:
        assert tuple(row.behaviour for row in answers if row.suite == suite) == prompts.harmful
    assert tuple(row.behaviour for row in answers if row.suite == "over_refusal") == prompts.safe
    assert {row.arm for row in answers} == {"base"}
    assert all(row.behaviour in row.messages[-1].content for row in answers)


def test_answers_are_the_models_and_verdicts_the_judges(base: BaseModel, answers: tuple[Answer, ...]) -> None:
    again = evaluate(base, base.model, choose(SPEC, base.folder), SPEC, arm="base", tick=ignore)
    assert again == answers
    for row in answers:
        judged = judge(row.behaviour, row.answer)
        assert (row.verdict, row.harmfulness, row.reason) == (judged.verdict, judged.harmfulness, judged.reason)


def test_only_what_was_asked_for_is_run_and_the_system_turn_comes_first(base: BaseModel) -> None:
    spec = SPEC.model_copy(update={"attacks": ("refusal_breaking",), "system_prompt": "Be kind."})
    found = evaluate(base, base.model, choose(spec, base.folder), spec, arm="x", tick=ignore)
    assert {row.suite for row in found} == {"refusal_breaking", "over_refusal"}
    assert all([message.role for message in row.messages] == ["system", "user"] for row in found)
    assert all(row.messages[0].content == "Be kind." for row in found)
    assert [(figure.suite, figure.metric) for figure in figures("x", found, spec)] == [
        ("refusal_breaking", "attack_success_rate"),
        ("refusal_breaking", "harmfulness"),
        ("over_refusal", "over_refusal_rate"),
    ]


def test_evaluating_can_be_stopped(base: BaseModel) -> None:
    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(base, base.model, choose(SPEC, base.folder), SPEC, arm="base", tick=stop)


def row(suite: Suite, verdict: Verdict, harmfulness: int | None) -> Answer:
    return Answer(
        arm="a",
        suite=suite,
        template="plain",
        behaviour="b",
        messages=(),
        answer="c",
        verdict=verdict,
        harmfulness=harmfulness,
        reason="d",
    )


def of(found: tuple[Figure, ...], suite: Suite, metric: str) -> Figure:
    (figure,) = [each for each in found if (each.suite, each.metric) == (suite, metric)]
    return figure


def test_undecided_and_empty_answers_are_in_no_rate() -> None:
    rows = (
        [row("direct", "complied", 5)] * 3
        + [row("direct", "refused", 1)] * 7
        + [row("direct", "undecided", None)] * 2
        + [row("direct", "empty", None)]
        + [row("over_refusal", "refused", 1)] * 2
        + [row("over_refusal", "complied", 4)] * 6
        + [row("over_refusal", "empty", None)]
    )
    found = figures("a", rows, SPEC)
    attack = of(found, "direct", "attack_success_rate")
    assert (attack.value, attack.n, attack.undecided, attack.judge) == (0.3, 10, 3, "refusal_phrases")
    assert (attack.low, attack.high) == pytest.approx((0.10779, 0.60322), abs=1e-5)
    harm = of(found, "direct", "harmfulness")
    assert (harm.value, harm.n, harm.undecided, harm.judge) == (pytest.approx(2.2), 10, 3, "harmfulness_rules")
    assert 1 <= harm.low < 2.2 < harm.high <= 5
    over = of(found, "over_refusal", "over_refusal_rate")
    assert (over.value, over.n, over.undecided) == (0.25, 8, 1)
    assert (over.low, over.high) == wilson(2, 8)[1:]


def test_every_family_has_its_figures_even_without_an_answer() -> None:
    found = figures("a", [], SPEC)
    assert len(found) == 2 * len(ATTACK_FAMILIES) + 1
    assert len({(figure.suite, figure.metric) for figure in found}) == len(found)
    for figure in found:
        assert (figure.n, figure.undecided) == (0, 0)
        assert (figure.low, figure.high) == ((1, 5) if figure.metric == "harmfulness" else (0, 1))


def test_where_nothing_could_be_decided_nothing_is_known() -> None:
    found = figures("a", [row("direct", "undecided", None)] * 5, SPEC)
    attack = of(found, "direct", "attack_success_rate")
    assert (attack.n, attack.undecided, attack.low, attack.high) == (0, 5, 0.0, 1.0)
