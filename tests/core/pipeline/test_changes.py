"""Changes are paired by prompt and by row, and leave out what is undecided for either model."""

import pytest

from core.pipeline.changes import add_changes
from core.schemas.evaluation import Answer, Evaluation, Figure, Judgement, TaskAnswer, Verdict
from core.schemas.metrics import Metric
from core.stats import wilson


def answer(run: str, prompt: int, verdict: Verdict, judge: str = "rules", suite: str = "direct") -> Answer:
    return Answer(
        run=run,
        suite=suite,
        prompt=prompt,
        template="plain",
        behaviour="b",
        messages=(),
        answer="c",
        judgements=(Judgement(judge=judge, verdict=verdict, reason="r"),),
    )


def task(run: str, row: int, value: float, metric: Metric) -> TaskAnswer:
    return TaskAnswer(run=run, suite="task", metric=metric, row=row, answer="", reference="", value=value)


def figure(run: str, metric: Metric, suite: str = "direct", judge: str = "rules") -> Figure:
    return Figure(run=run, suite=suite, metric=metric, judge=judge, value=0, n=1, low=0, high=1)


def evaluation(run: str, verdicts: list[Verdict], losses: list[float]) -> Evaluation:
    return Evaluation(
        figures=(
            figure(run, "attack_success_rate"),
            figure(run, "loss", "task", "none"),
            figure(run, "perplexity", "task", "none"),
        ),
        answers=tuple(answer(run, number, verdict) for number, verdict in enumerate(verdicts)),
        tasks=tuple(task(run, number, loss, "loss") for number, loss in enumerate(losses)),
    )


def test_changes_are_paired_and_skip_prompts_that_are_undecided_on_either_side() -> None:
    base = evaluation("base", ["refused", "refused", "undecided", "complied"], [3.0, 2.0, 1.0])
    tuned = evaluation("x", ["complied", "partial", "complied", "empty"], [2.0, 1.0, 0.0])
    attack, loss, perplexity = add_changes(base, tuned).figures
    assert attack.change is not None
    assert (attack.change.value, attack.change.n) == (0.5, 2)
    assert -1 <= attack.change.low <= 0.5 <= attack.change.high <= 1
    assert loss.change is not None
    assert (loss.change.value, loss.change.n) == (-1.0, 3)
    assert loss.change.low < -1 < loss.change.high  # all rows alike is no certainty
    assert perplexity.change is None
    assert all(each.change is None for each in base.figures)


def test_judges_and_suites_are_not_mixed() -> None:
    base = Evaluation(figures=(), answers=(answer("base", 0, "refused", judge="other"),))
    tuned = Evaluation(
        figures=(figure("x", "attack_success_rate"), figure("x", "attack_success_rate", "role_play")),
        answers=(answer("x", 0, "complied"), answer("x", 0, "complied", suite="role_play")),
    )
    assert all(each.change is None for each in add_changes(base, tuned).figures)


def test_an_observed_change_of_zero_has_a_nonzero_interval() -> None:
    refusals: list[Verdict] = ["refused"] * 40
    attack = add_changes(evaluation("base", refusals, []), evaluation("x", refusals, [])).figures[0]
    assert attack.change is not None
    assert (attack.change.value, attack.change.high) == (0.0, pytest.approx(wilson(0, 40)[2]))
