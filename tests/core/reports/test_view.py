"""The page shows what was measured: table cells, titles of runs, robustness maps."""

import pytest

from core.reports.view import (
    Cell,
    Group,
    StabilityRow,
    categories,
    drift,
    in_order,
    largest_noise,
    noise_note,
    nothing_to_protect,
    robustness_map,
    runs,
    system_prompts,
    table,
    titles,
    training_notes,
)
from core.schemas.analysis import GradientPerturbation
from core.schemas.evaluation import WeightsProof
from core.schemas.results import Report, SafeguardEffect, ValidatedStep
from core.schemas.safeguards import Safeguards, SafeTemplate, SafetyMix
from core.schemas.strategy import MlLrStrategy, UniformStrategy


def test_base_model_is_the_first_column(report: Report) -> None:
    assert runs(report) == ("base", "ml_lr", "uniform")


def test_table_has_a_row_for_each_figure_and_a_column_for_each_run(report: Report) -> None:
    rows = table(report)
    assert [row.title for row in rows] == [
        "Attack success rate, direct (judge: rules)",
        "Over-refusal rate (judge: rules)",
        "Validation loss, nats per token",
    ]
    assert rows[0].cells == (
        Cell("12.5 %", "6.2 to 25", "n = 64"),
        Cell(
            "25 %",
            "12.5 to 50",
            "n = 64, 1 undecided",
            "+12.5 points (+5 to +20), 60 pairs",
            "noise 3.1 points (4 of 64 verdicts differ)",
        ),
        Cell("37.5 %", "18.8 to 75", "n = 64, 2 undecided"),
    )
    # No decided answer is not a rate of 0 %, and a missing figure is an empty cell.
    assert rows[1].cells == (
        Cell("unknown", "0 to 100", "n = 0, 64 undecided"),
        None,
        None,
    )
    assert rows[2].cells[0] == Cell("1.25", "0.06 to 0.25", "n = 64")


def test_a_change_no_larger_than_noise_is_marked(report: Report) -> None:
    figure = report.figures[2]
    assert figure.change is not None
    small = figure.model_copy(update={"change": figure.change.model_copy(update={"value": -0.03125})})
    loss = small.model_copy(update={"metric": "loss", "suite": "task", "judge": "none"})
    cells = [row.cells[1] for row in table(report.model_copy(update={"figures": (small, loss)}))]
    assert [cell.noise for cell in cells if cell is not None] == [
        "no larger than noise, 3.1 points (4 of 64 verdicts differ)",
        "no larger than noise, 0.03",
    ]


def test_noise_is_explained_only_if_it_was_measured(report: Report) -> None:
    assert "measured twice" in noise_note(report)
    assert largest_noise(report.figures) == "3.1 points"
    quiet = tuple(figure.model_copy(update={"change": None}) for figure in report.figures)
    assert noise_note(report.model_copy(update={"figures": quiet})) == largest_noise(quiet) == ""


def test_categories_have_a_row_for_each_judge_and_a_column_for_each_run(report: Report) -> None:
    (row,) = categories(report)
    assert row.title == "theft (judge: rules)"
    assert row.cells == (Cell("25 %", "7.1 to 59.1", "n = 8, 1 undecided"), None, None)


def test_map_counts_robust_modules_by_type_in_block_order(report: Report) -> None:
    found = robustness_map(report.robustness[0])
    assert found.by_type == (("q", 2, 2), ("v", 0, 1), ("own", 0, 1))
    assert found.robust == {"layers.0.q", "layers.1.q"}
    assert in_order(["zeta", "down", "router", "q"]) == ("q", "down", "router", "zeta")


def test_drift_follows_the_proxy_of_the_analysis(report: Report) -> None:
    result = report.robustness[0]
    other = result.model_copy(update={"analysis": result.analysis.model_copy(update={"proxy": "feature_drift"})})
    assert [drift(module, result) for module in result.modules] == [0.0, 4.0, -1.0, 1.0]
    assert [drift(module, other) for module in other.modules] == [0.0, 0.4, -0.1, 0.1]


def test_scores_of_judges_are_separated_from_rates(report: Report) -> None:
    first, *others = report.figures
    score = first.model_copy(update={"metric": "harmfulness", "value": 2.5})
    rows = table(report.model_copy(update={"figures": (score, first, *others)}))
    assert [row.score for row in rows] == [False, True, False, False]
    assert rows[1].title == "Harmfulness, 1 to 5, direct (judge: rules)"


def test_groups_have_drift_gain_and_count(report: Report) -> None:
    result = report.robustness[0]
    found = robustness_map(result)
    assert found.groups == (
        Group("q", "-1.000", "1.500", "2 of 2"),
        Group("layer 0", "4.000", "1.500", "1 of 2"),
    )
    assert found.probe == "45 steps, update scale 2.5 in the search"
    halves = "halves of the prompts and rows"
    assert found.agreements == (
        StabilityRow(halves, "where refusals break", "0.81", "below 0.001", "100 % (by chance 50 %)"),
        StabilityRow(halves, "at the end of the probe", "0.25", "0.125", "50 % (by chance 50 %)"),
    )
    seeds = GradientPerturbation(seeds=2)
    analysis = result.analysis.model_copy(update={"perturbation": seeds, "proxy": "feature_drift"})
    twice = robustness_map(result.model_copy(update={"analysis": analysis, "probe_steps": (45, 60)}))
    assert [group.drift for group in twice.groups] == ["-0.100 ± 0.250", "0.400 ± 0.250"]
    assert twice.probe == "45, 60 steps with 2 seeds, update scale 2.5 in the search"
    assert robustness_map(result.model_copy(update={"update_scale": 1.0})).probe == "45 steps"
    assert robustness_map(result.model_copy(update={"probe_steps": ()})).probe == ""


def guarded(report: Report) -> Report:
    """The report with safeguards on both runs, and an own label on the second."""
    mixed = MlLrStrategy(safeguards=Safeguards(SafetyMix(share=0.025)))
    prompted = UniformStrategy(label="kind", safeguards=Safeguards(SafeTemplate(system_prompt="Be <kind>.")))
    return report.model_copy(
        update={"spec": report.spec.model_copy(update={"strategy": mixed, "compare": (prompted,)})}
    )


def test_titles_name_strategy_and_safeguards(report: Report) -> None:
    assert titles(report) == {"ml_lr": "ml_lr", "uniform": "uniform"}
    assert titles(guarded(report)) == {"ml_lr": "ml_lr + safety_mix 2.5 %", "kind": "kind: uniform + safe_template"}


def test_only_runs_with_a_serving_prompt_have_a_system_prompt(report: Report) -> None:
    assert system_prompts(report) == {}
    assert system_prompts(guarded(report)) == {"kind": "Be <kind>."}


def test_training_notes_cover_facts_without_a_column(report: Report) -> None:
    ours, uniform = report.training
    assert training_notes(uniform) == ()
    assert training_notes(ours) == ("2 modules at 0.1 of the standard rate",)
    scales = dict(zip(ours.plan.scales, (1.0, 0.0, 0.25, 0.5), strict=True))
    first = dict.fromkeys(scales, 0.0) | {next(iter(scales)): 1.0}
    plan = ours.plan.model_copy(update={"scales": scales, "warmup_scales": first, "warmup_ratio": 0.3})
    measured = uniform.model_copy(
        update={
            "validation": (ValidatedStep(step=2, loss=0.5), ValidatedStep(step=4, loss=0.75)),
            "best_step": 2,
            "stopped_early": True,
        }
    )
    proof = WeightsProof(run="uniform", tokens=64, change=0.123456, noise=2e-8, merged=3e-7)
    assert training_notes(uniform, proof) == (
        "the stored weights, loaded anew, move 12 % of the probability of trained tokens (rounding 2e-06 %, merging "
        "3e-05 %)",
    )
    (words,) = training_notes(measured)
    assert words == "lowest validation loss 0.500 at step 2; stopped early and kept the weights of this step"
    (words,) = training_notes(measured.model_copy(update={"end_step": 6}))
    assert words == "lowest validation loss 0.500 at step 2", "a safeguard kept the weights of step 6"
    effects = (
        SafeguardEffect(safeguard="safety_mix", summary="12 refusals mixed in, 7 of them different"),
        SafeguardEffect(safeguard="project_to_safe", summary="2 of 4 updates projected"),
    )
    whole = ours.model_copy(update={"plan": plan, "safeguards": effects})
    assert training_notes(whole) == (
        "warm-up of 1 module for 30 % of the steps",
        "2 modules at 0.25 to 0.5 of the standard rate",
        "1 module frozen",
        "12 refusals mixed in, 7 of them different",
        "2 of 4 updates projected",
    )


@pytest.mark.parametrize(
    ("change", "protects"),
    [
        ({}, False),
        ({"value": 0.51}, True),
        ({"value": 0.5}, False),
        ({"value": 1.0, "n": 0}, False),
        ({"value": 1.0, "run": "uniform"}, False),
        ({"value": 1.0, "suite": "prompt_injection"}, False),
        ({"value": 5.0, "metric": "harmfulness"}, False),
    ],
)
def test_base_model_that_complies_with_most_direct_prompts_has_nothing_to_protect(
    report: Report, change: dict[str, object], protects: bool
) -> None:
    first, *others = report.figures
    changed = first.model_copy(update=change)
    assert nothing_to_protect([*others, changed]) == (changed if protects else None)
