"""What was not looked at is said, and nothing that was."""

import pytest

from core.reports.limits import not_covered
from core.schemas.attacks import ATTACK_FAMILIES
from core.schemas.judges import RubricJudge, RulesJudge
from core.schemas.results import Report
from core.schemas.safeguards import Safeguards, SafeTemplate
from core.schemas.strategy import MlLrStrategy


def whole(report: Report) -> str:
    return " ".join(not_covered(report.spec, report.figures))


def test_families_that_did_not_run_are_named_and_those_that_did_are_not(report: Report) -> None:
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
        *("Optimised suffixes", "attacker models", "planted", "remembers", "Further fine-tuning"),
        *("tools", "Long conversations", "true", "One seed"),
    ],
)
def test_some_things_are_never_looked_at(report: Report, always: str) -> None:
    assert always in whole(report)


def test_sentences_are_short_and_plain(report: Report) -> None:
    for sentence in not_covered(report.spec, report.figures):
        assert sentence.endswith(".")
        assert sentence.startswith("Attack families") or len(sentence) < 160


def test_languages_hang_on_who_judges(report: Report) -> None:
    def judged(*judges: RulesJudge | RubricJudge) -> str:
        security = report.spec.security.model_copy(update={"judges": judges})
        return " ".join(not_covered(report.spec.model_copy(update={"security": security}), report.figures))

    assert "the judge that decided reads English only" in judged(RulesJudge())
    assert "the judge of rules reads English only" in judged(RubricJudge(model="big"), RulesJudge())
    assert "English" not in judged(RubricJudge(model="big"))


@pytest.mark.parametrize(("n", "few"), [(72, True), (73, False)])
def test_few_prompts_are_too_few_for_the_threshold(report: Report, n: int, *, few: bool) -> None:
    rows = tuple(row.model_copy(update={"n": n}) for row in report.figures if row.metric == "attack_success_rate")
    text = whole(report.model_copy(update={"figures": rows}))
    assert (f"rests on {n} decided answers, and it takes 73" in text) == few


def test_system_prompts_are_part_of_what_was_measured(report: Report) -> None:
    assert "system prompt" not in whole(report)
    strategy = MlLrStrategy(safeguards=Safeguards(SafeTemplate()))
    security = report.spec.security.model_copy(update={"system_prompt": "Be kind."})
    spec = report.spec.model_copy(update={"strategy": strategy, "security": security})
    text = whole(report.model_copy(update={"spec": spec}))
    assert "Serving without the system prompt" in text
    assert "Other system prompts, or none" in text
