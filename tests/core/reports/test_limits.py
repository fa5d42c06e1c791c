"""Limitations name what was not evaluated, and nothing else."""

import pytest

from core.reports.limits import not_covered
from core.schemas.attacks import ATTACK_FAMILIES
from core.schemas.judges import RubricJudge, RulesJudge
from core.schemas.results import Report
from core.schemas.safeguards import Safeguards, SafeTemplate
from core.schemas.strategy import MlLrStrategy


def whole(report: Report) -> str:
    return " ".join(not_covered(report.spec, report.figures))


def test_only_families_that_did_not_run_are_named(report: Report) -> None:
    first = report.figures[0]
    text = whole(report)
    assert "prefill (answers begun for the model)" in text
    assert "direct (" not in text
    ran = report.model_copy(
        update={"figures": tuple(first.model_copy(update={"suite": family}) for family in ATTACK_FAMILIES)}
    )
    assert "Attack families that were not run" not in whole(ran)


@pytest.mark.parametrize(
    "always",
    [
        *("adversarial suffixes", "attacker models", "triggers", "Memorization", "Further fine-tuning"),
        *("tools", "Long conversations", "true", "Variation between seeds"),
    ],
)
def test_some_limitations_always_apply(report: Report, always: str) -> None:
    assert always in whole(report)


def test_sentences_are_short_and_plain(report: Report) -> None:
    for sentence in not_covered(report.spec, report.figures):
        assert sentence.endswith(".")
        assert sentence.startswith("Attack families") or len(sentence) < 160


def test_language_limitation_depends_on_the_judges(report: Report) -> None:
    def judged(*judges: RulesJudge | RubricJudge) -> str:
        security = report.spec.security.model_copy(update={"judges": judges})
        return " ".join(not_covered(report.spec.model_copy(update={"security": security}), report.figures))

    assert "the judge rules can judge only English answers" in judged(RulesJudge())
    assert "the judge rules can judge only English answers" in judged(RubricJudge(model="big"), RulesJudge())
    assert "English" not in judged(RubricJudge(model="big"))


@pytest.mark.parametrize(("n", "few"), [(72, True), (73, False)])
def test_small_samples_are_named(report: Report, n: int, *, few: bool) -> None:
    rows = tuple(row.model_copy(update={"n": n}) for row in report.figures if row.metric == "attack_success_rate")
    text = whole(report.model_copy(update={"figures": rows}))
    assert (f"based on {n} decided answers; showing a rate below 5 % takes at least 73" in text) == few


def test_system_prompts_limit_the_figures(report: Report) -> None:
    assert "system prompt" not in whole(report)
    strategy = MlLrStrategy(safeguards=Safeguards(SafeTemplate()))
    security = report.spec.security.model_copy(update={"system_prompt": "Be kind."})
    spec = report.spec.model_copy(update={"strategy": strategy, "security": security})
    text = whole(report.model_copy(update={"spec": spec}))
    assert "Serving without the system prompt" in text
    assert "Other system prompts" in text
