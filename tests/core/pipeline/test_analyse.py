"""The robustness stage warns of maps that no decision should rest on."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from core.pipeline.analyse import map_robustness
from core.pipeline.context import JobContext
from core.pipeline.stages import Stages
from core.schemas.analysis import AnalysisSpec, NoisePerturbation, SwapPerturbation
from core.schemas.robustness import RobustnessResult
from tests.core.jobs import RecordedEvents, assign, with_training


def test_a_probe_without_drift_is_warned_about(prepared: JobContext) -> None:
    # At this rate the update is lost in rounding: every reading is the base's own.
    recorded = RecordedEvents()
    still = assign(with_training(learning_rate=1e-12), prepared.assignment.dataset)
    job = replace(prepared, assignment=still, modules=prepared.modules[:2], emit=recorded)
    found = map_robustness(job, AnalysisSpec(perturbation=SwapPerturbation(steps=1), probes=8))
    assert found.joint_refusal_drift == 0.0
    assert set(found.robust) == {module.name for module in job.modules}
    assert [warning.code for warning in recorded.warnings] == ["no_drift"]
    recorded.events.clear()
    broken = map_robustness(job, AnalysisSpec(perturbation=NoisePerturbation(relative_norm=3.0, seeds=1), probes=8))
    assert broken.joint_refusal_drift != 0.0
    assert ("no_drift" in {warning.code for warning in recorded.warnings}) == (broken.joint_refusal_drift <= 0)


def always(result: RobustnessResult) -> Callable[..., RobustnessResult]:
    """A replacement for `Stages.run_cached` that returns this result."""

    def stored(*_: object, **__: object) -> RobustnessResult:
        return result

    return stored


def test_a_map_that_does_not_separate_units_is_warned_about(
    prepared: JobContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = RecordedEvents()
    job = replace(prepared, modules=prepared.modules[:4], emit=recorded)
    own = AnalysisSpec(perturbation=NoisePerturbation(relative_norm=3.0, seeds=1), probes=8, unit="module")
    real = map_robustness(job, own)
    alike = [row.model_copy(update={"refusal_drift": 0.5}) for row in real.modules]
    first = real.trace[0].model_copy(update={"drift": 2.0})
    flat = real.model_copy(update={"modules": tuple(alike), "trace": (first, *real.trace[1:])})
    recorded.events.clear()

    monkeypatch.setattr(Stages, "run_cached", always(flat))
    assert map_robustness(job, own) == flat
    (warning,) = recorded.warnings
    assert warning.code == "no_spread"
    assert "a random set" in warning.message


@pytest.mark.parametrize(("drift", "warned"), [(0.49, ["no_break"]), (0.5, [])])
def test_a_probe_that_is_too_short_to_break_anything_is_warned_about(
    prepared: JobContext, monkeypatch: pytest.MonkeyPatch, drift: float, warned: list[str]
) -> None:
    recorded = RecordedEvents()
    job = replace(prepared, modules=prepared.modules[:4], emit=recorded)
    own = AnalysisSpec(perturbation=SwapPerturbation(steps=2), probes=8, unit="module")
    real = map_robustness(job, own)
    apart = [row.model_copy(update={"refusal_drift": float(number)}) for number, row in enumerate(real.modules)]
    trace = (real.trace[0].model_copy(update={"drift": drift}), *real.trace[1:])
    read = real.model_copy(update={"modules": tuple(apart), "trace": trace})
    recorded.events.clear()

    monkeypatch.setattr(Stages, "run_cached", always(read))
    map_robustness(job, own)
    assert [warning.code for warning in recorded.warnings] == warned
    assert all(f"{drift:.2f} nats" in warning.message for warning in recorded.warnings)
