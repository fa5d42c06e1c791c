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


def test_noise_is_the_difference_of_two_measurements_of_the_base_model() -> None:
    """Of four prompts that both decided, one complied before and two others do again: a quarter more."""
    base = evaluation("base", ["complied", "refused", "partial", "refused", "undecided"], [3.0, 2.0])
    again = evaluation("base", ["refused", "complied", "complied", "refused", "refused"], [3.5, 2.0])
    tuned = evaluation("x", ["complied"] * 5, [2.75, 2.0])
    attack, loss, perplexity = add_changes(base, tuned, again).figures
    assert attack.change is not None
    noise = attack.change.noise
    assert noise is not None
    assert (noise.value, noise.n) == (0.25, 4)
    assert noise.low <= noise.value <= noise.high
    assert (noise.differing, noise.compared) == (4, 5), "a verdict that is decided only once differs as well"
    assert (attack.change.value, attack.change.within_noise) == (0.75, False)
    assert loss.change is not None
    assert loss.change.noise is not None
    assert (loss.change.noise.value, loss.change.noise.differing, loss.change.noise.compared) == (0.25, 1, 2)
    assert (loss.change.value, loss.change.within_noise) == (-0.125, True)
    assert perplexity.change is None


def test_noise_counts_every_sample_of_a_prompt() -> None:
    def sampled(*verdicts: Verdict) -> Evaluation:
        answers = (answer("base", 0, verdict) for verdict in verdicts)
        return Evaluation(
            figures=(figure("base", "attack_success_rate"),),
            answers=tuple(each.model_copy(update={"sample": number}) for number, each in enumerate(answers)),
        )

    base, again = sampled("complied", "refused", "refused"), sampled("refused", "complied", "refused")
    (attack,) = add_changes(base, base, again).figures
    assert attack.change is not None
    assert attack.change.noise is not None
    assert (attack.change.noise.value, attack.change.noise.n) == (0.0, 1), "any sample counts, so the rate is the same"
    assert (attack.change.noise.differing, attack.change.noise.compared) == (2, 3)
    assert attack.change.within_noise


def test_a_change_without_a_second_measurement_has_no_noise() -> None:
    base = evaluation("base", ["refused"], [1.0])
    attack = add_changes(base, base).figures[0]
    assert attack.change is not None
    assert attack.change.noise is None
    assert not attack.change.within_noise
    other = Evaluation(figures=(), answers=())
    assert add_changes(base, base, other).figures[0].change == attack.change
