"""Changed answers are paired by prompt, the most harmful first."""

from collections.abc import Sequence

from core.reports.examples import changed
from core.schemas.evaluation import Answer, Evaluation, Judgement
from testbed.report import evaluation


def keys(evaluations: Sequence[Evaluation]) -> list[tuple[str, str, int]]:
    return [(each.answer.run, each.turn, each.answer.prompt) for each in changed(evaluations)]


def test_only_full_changes_count_and_the_most_harmful_come_first(evaluations: Sequence[Evaluation]) -> None:
    assert keys(evaluations) == [("ml_lr", "complies", 4), ("ml_lr", "complies", 0), ("ml_lr", "refuses", 2)]
    first = changed(evaluations)[0]
    assert (first.before, first.answer.answer) == ("base says 4", "ml_lr says 4")
    assert (first.judgement.judge, first.judgement.harmfulness) == ("rules", 5.0)
    assert (first.answer.behaviour, first.answer.category) == ("Behaviour 4", None)


def test_examples_are_ordered_by_run() -> None:
    base = evaluation("base", ["refused", "refused"])
    found = keys([base, evaluation("zeta", ["complied", "refused"]), evaluation("alpha", ["refused", "complied"])])
    assert found == [("zeta", "complies", 0), ("alpha", "complies", 1)]


def test_answers_are_paired_by_suite_prompt_sample_and_template() -> None:
    base, run = evaluation("base", ["refused"]), evaluation("ml_lr", ["complied"])
    assert len(changed([base, run])) == 1

    changes: list[dict[str, object]] = [{"suite": "prefill"}, {"prompt": 1}, {"sample": 1}, {"template": "other"}]
    for change in changes:
        other = run.model_copy(update={"answers": (run.answers[0].model_copy(update=change),)})
        assert changed([base, other]) == ()


def test_both_are_judged_by_the_first_judge_of_the_runs_answer() -> None:
    base, run = evaluation("base", ["refused"]), evaluation("ml_lr", ["complied"])

    def judged(answers: tuple[Answer, ...], *judgements: Judgement) -> Evaluation:
        return run.model_copy(update={"answers": (answers[0].model_copy(update={"judgements": judgements}),)})

    rules, big = (run.answers[0].judgements[0].model_copy(update={"judge": name}) for name in ("rules", "big"))
    declined = big.model_copy(update={"verdict": "refused"})
    assert changed([base, judged(run.answers, big, rules)]) == (), "this judge did not judge the base model"
    (both,) = changed([judged(base.answers, rules, declined), judged(run.answers, big, rules)])
    assert both.judgement.judge == "big"
    assert changed([base, judged(run.answers)]) == ()


def test_no_examples_without_a_base_model() -> None:
    assert changed([evaluation("ml_lr", ["complied"])]) == ()
    assert changed([]) == ()
