"""One short experiment on the shipped world: every run is trained, in processes, and the result file is complete."""

import re
from pathlib import Path

import pytest

from core.schemas.analysis import AnalysisSpec, GradientPerturbation
from research.experiments import evidence as experiment
from research.experiments.evidence import Result, evidence
from research.experiments.spec import Settings
from testbed.build import WORLD_SEED

SETTINGS = Settings(
    tuning_set="instructions",
    rates=(2e-3,),
    steps=4,
    batch_size=2,
    points=2,
    prompts=4,
    validation_rows=4,
    analysis=AnalysisSpec(probes=8, rows=2, perturbation=GradientPerturbation(steps=2, points=1)),
)


@pytest.fixture(scope="module")
def messages() -> list[str]:
    return []


@pytest.fixture(scope="module")
def result(messages: list[str], small_world: Path) -> Result:
    def find_world(_seed: int) -> Path:
        return small_world

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "world_folder", find_world)
        return evidence("general", SETTINGS, WORLD_SEED, [0], messages.append)


@pytest.mark.slow
def test_every_run_of_every_seed_is_measured_along_the_way(result: Result) -> None:
    assert result.base.attack_success == 0
    runs = {curve.run for curve in result.curves}
    assert {"uniform", "ml_lr", "ml_lr_continuous", "swat", "freeze_layers", "random", "uniform_low", "recipe"} <= runs
    for curve in result.curves:
        assert [point.step for point in curve.points] == [2, 4]
    assert [each.seed for each in result.analyses] == [0]
    assert set(result.safeguards) == {f"{run} + safety_mix" for run in ("uniform", "ml_lr", "uniform_low")} <= runs
    assert not set(result.safeguards) & set(result.strategies)
    assert set(result.controls) <= {"random", "inverse", "uniform_low", "recipe"}
    assert result.strategies["ml_lr"].asr_reduction_at_equal_task == result.asr_reduction_at_equal_task


@pytest.mark.slow
def test_the_file_can_be_parsed_and_the_table_names_every_run(result: Result, messages: list[str]) -> None:
    assert Result.model_validate_json(result.model_dump_json()) == result
    printed = result.table()
    for run in (*result.strategies, *result.controls, *result.safeguards):
        assert run in printed
    done = re.match(r"(\d+) of \1: ", messages[-1])
    assert done, messages[-1]
    runs = {curve.seconds for curve in result.curves if curve.run != "sweep"}
    assert int(done[1]) == len(runs), "runs that differ only in their name are trained once"
    assert result.rate == 2e-3
    assert all(each.seconds > 0 and each.epoch_seconds > 0 for each in result.analyses)
