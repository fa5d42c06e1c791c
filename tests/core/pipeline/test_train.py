"""The training stage fails early if a run cannot work, and applies and reports the safeguards that choose weights."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from core.errors import TrainingFailed
from core.pipeline.analyse import map_robustness
from core.pipeline.context import JobContext
from core.pipeline.stages import Stages
from core.pipeline.train import train_run
from core.schemas.analysis import AnalysisSpec, NoisePerturbation
from core.schemas.prompts import PromptSet
from core.schemas.results import TrainingResult
from core.schemas.safeguards import AverageWeights, KeepSafeWeights, SafeguardOptions, Safeguards, ScaleUpdate
from core.schemas.strategy import MlLrStrategy, UniformStrategy
from core.schemas.training import Method
from tests.core.jobs import SPEC, assign, with_training

AVERAGE, KEEP = AverageWeights(decay=0.5), KeepSafeWeights(max_refusal_drift=100)


def test_a_map_without_robust_modules_and_a_ratio_of_0_is_rejected(prepared: JobContext) -> None:
    own = AnalysisSpec(perturbation=NoisePerturbation(relative_norm=3.0, seeds=1), probes=8)
    found = map_robustness(replace(prepared, modules=prepared.modules[:2]), own).model_copy(update={"robust": ()})
    with pytest.raises(TrainingFailed, match="no module is robust and the ratio is 0") as caught:
        train_run(prepared, MlLrStrategy(ratio=0, analysis=own), {own: found})
    assert (caught.value.code, caught.value.param) == ("nothing_to_train", "strategy")


def run(
    job: JobContext, *options: SafeguardOptions, method: Method = "lora", rate: float | None = None
) -> TrainingResult:
    """Train one run with these safeguards."""
    assignment = assign(with_training(method=method, learning_rate=rate), job.assignment.dataset)
    stages = Stages(job.store, "j", job.emit, ("training",))
    return train_run(
        replace(job, assignment=assignment, stages=stages), UniformStrategy(safeguards=Safeguards(*options)), {}
    )


def stored(job: JobContext, result: TrainingResult) -> dict[str, torch.Tensor]:
    (file,) = [file for file in result.adapter if file.name.endswith(".safetensors")]
    return load_file(job.store.path(file.key))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_average_safe_weights_and_scale_are_combined_and_reported(prepared: JobContext, method: Method) -> None:
    steps = SPEC.training.steps
    averaged = run(prepared, AVERAGE, method=method)
    before = stored(prepared, averaged)
    combined = run(prepared, AVERAGE, KEEP, ScaleUpdate(factor=0.5), method=method)
    after = stored(prepared, combined)
    original = {name: value.detach() for name, value in prepared.base.model.named_parameters()}
    changed = 0
    for name, value in before.items():
        if method == "full":
            expected = original[name] + 0.5 * (value - original[name])
        else:
            expected = 0.5 * value if ".lora_B." in name else value
        torch.testing.assert_close(after[name], expected)
        changed += not torch.equal(after[name], value)
    assert changed == len(prepared.modules)
    assert combined.end_step == averaged.end_step == steps
    average, kept, scaled = combined.safeguards
    assert (average.safeguard, average.values) == ("average_weights", {"base_share": 0.5**6})
    assert average.summary == "weights averaged over 6 steps, with 1.6 % of the base model's"
    assert (kept.safeguard, kept.counts) == ("keep_safe_weights", {"step": steps})
    assert kept.values == {"refusal_drift": combined.security[-1].refusal_drift}
    assert kept.summary.startswith("weights of step 6 of 6 kept, with a refusal drift of ")
    assert (scaled.safeguard, scaled.values["factor"]) == ("scale_update", 0.5)
    assert 0 < abs(scaled.values["refusal_drift"]) < abs(kept.values["refusal_drift"])


def test_the_whole_update_has_the_drift_of_the_last_measurement(prepared: JobContext) -> None:
    result = run(prepared, ScaleUpdate(factor=1.0))
    assert result.safeguards[0].values["refusal_drift"] == pytest.approx(result.security[-1].refusal_drift, abs=1e-5)


def test_a_bound_ends_the_run_with_an_earlier_step(prepared: JobContext) -> None:
    train = partial(run, prepared, method="full", rate=2e-3)
    drifts = [point.refusal_drift for point in train().security]
    assert max(drifts[:4]) < drifts[4] < drifts[5] < drifts[6], "this run drifts away"
    kept = train(KeepSafeWeights(max_refusal_drift=(max(drifts[:4]) + drifts[4]) / 2, patience=1))
    assert (kept.end_step, kept.steps, kept.stopped_early) == (3, 4, True)
    assert kept.safeguards[0].values == {"refusal_drift": pytest.approx(drifts[3])}
    scaled = train(ScaleUpdate(max_refusal_drift=drifts[-1] / 2))
    values = scaled.safeguards[0].values
    assert 0.1 <= values["factor"] < 1
    assert values["refusal_drift"] <= drifts[-1] / 2


def reported_probes(prompts: PromptSet) -> PromptSet:
    """A set whose harmful probe prompts are all measured for figures too."""
    harmful = tuple(behaviour.text for behaviour in prompts.evaluation.harmful)
    return prompts.model_copy(update={"probe": prompts.probe.model_copy(update={"harmful": harmful})})


@pytest.mark.parametrize("options", [KEEP, ScaleUpdate()])
def test_a_bound_never_uses_prompts_that_figures_are_measured_on(
    prepared: JobContext, options: SafeguardOptions
) -> None:
    job = replace(prepared, prompts=reported_probes(prepared.prompts))
    assert job.watched_refusals is None
    with pytest.raises(TrainingFailed, match="no harmful probe prompt") as caught:
        run(job, options)
    assert (caught.value.code, caught.value.param) == (
        "no_refusals_to_measure",
        f"strategy.safeguards.{options.name}",
    )
    (effect,) = run(job, ScaleUpdate(factor=0.5)).safeguards
    assert (effect.values, effect.summary) == ({"factor": 0.5}, "update scaled by 0.5")
