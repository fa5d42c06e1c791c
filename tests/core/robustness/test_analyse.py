"""The analysis on the testbed, small: every module measured, the search on top, and the base untouched."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from peft import PeftModel

from core.data.template import Encoded
from core.errors import InvalidModel
from core.lm.generate import Tick
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.robustness.analyse import TrainProbe, analyse
from core.spec.analysis import AnalysisSpec, NoisePerturbation, SwapPerturbation
from core.spec.results import RobustnessResult
from core.spec.security import ProbePrompts
from tests.core.helpers import Ticks, fingerprint, ignore

NOISE = AnalysisSpec(perturbation=NoisePerturbation(seeds=1), probes=8)
STEPS = 4
SWAP = AnalysisSpec(perturbation=SwapPerturbation(steps=STEPS), probes=8)
SHORT = SWAP.model_copy(update={"perturbation": SwapPerturbation(steps=1)})
Analyse = Callable[..., RobustnessResult]


@pytest.fixture(scope="module")
def run(
    base: BaseModel,
    modules: tuple[Module, ...],
    prompts: ProbePrompts,
    rows: tuple[Encoded, ...],
    train_probe: TrainProbe,
) -> Analyse:
    def _run(
        analysis: AnalysisSpec,
        *,
        chosen: tuple[Module, ...] = modules,
        asked: ProbePrompts = prompts,
        probe: TrainProbe = train_probe,
        tick: Tick = ignore,
    ) -> RobustnessResult:
        return analyse(base, chosen, analysis, asked, rows, train_probe=probe, prepared=ignore, tick=tick)

    return _run


def assert_whole(found: RobustnessResult, modules: tuple[Module, ...]) -> None:
    names = [module.name for module in modules]
    assert [row.module for row in found.modules] == names
    assert [(row.layer, row.type, row.parameters) for row in found.modules] == [
        (module.layer, module.type, module.parameters) for module in modules
    ]
    assert sorted(found.order) == sorted(names)
    assert set(found.robust) <= set(names)
    assert found.usable
    assert found.classifier.auroc >= found.analysis.min_auroc
    assert 1 <= found.classifier.layer <= 6
    assert RobustnessResult.model_validate_json(found.model_dump_json()) == found


@pytest.fixture(scope="module")
def last_layers(modules: tuple[Module, ...]) -> tuple[Module, ...]:
    return tuple(module for module in modules if module.layer >= 4)


@pytest.fixture(scope="module")
def noise(run: Analyse) -> RobustnessResult:
    return run(NOISE)


@pytest.fixture(scope="module")
def swap(run: Analyse, last_layers: tuple[Module, ...]) -> RobustnessResult:
    return run(SWAP, chosen=last_layers)


def test_noise(noise: RobustnessResult, modules: tuple[Module, ...]) -> None:
    assert_whole(noise, modules)
    assert noise.analysis == NOISE
    assert len({row.refusal_drift for row in noise.modules}) > 30
    assert all(row.refusal_drift_spread == row.feature_drift_spread == 0.0 for row in noise.modules)
    assert noise.trace[0].phase == "all"
    assert noise.trace[0].size == len(modules)
    assert noise.trace[0].drift == pytest.approx(noise.joint_refusal_drift)


def test_the_joint_drift_of_what_was_found_is_inside_the_budget(
    noise: RobustnessResult, swap: RobustnessResult
) -> None:
    for found in (noise, swap):
        accepted = [step for step in found.trace if step.accepted]
        if found.robust:
            assert accepted[-1].size == len(found.robust)
            assert accepted[-1].drift <= found.analysis.budget * found.trace[0].drift


def test_swap(swap: RobustnessResult, last_layers: tuple[Module, ...]) -> None:
    assert_whole(swap, last_layers)
    assert swap.joint_task_gain > 0.05, "the probe has learnt nothing"
    assert swap.trace[0].drift == pytest.approx(swap.joint_refusal_drift)


def test_swap_drift_is_the_mean_of_moving_a_module_alone_and_of_taking_it_out(
    run: Analyse, modules: tuple[Module, ...]
) -> None:
    v, down = (module for module in modules if module.layer == 5 and module.type in ("v", "down"))
    both, only_v, only_down = (run(SWAP, chosen=chosen) for chosen in ((v, down), (v,), (down,)))
    for row, alone, other in ((both.modules[0], only_v, only_down), (both.modules[1], only_down, only_v)):
        found = (row.refusal_drift, row.feature_drift, row.task_gain)
        wanted = (np.array(joint(alone)) + joint(both) - joint(other)) / 2
        assert found == pytest.approx(wanted.tolist(), abs=1e-5)
    assert joint(only_v) != pytest.approx(joint(only_down), abs=1e-4)


def joint(found: RobustnessResult) -> list[float]:
    return [found.joint_refusal_drift, found.joint_feature_drift, found.joint_task_gain]


def test_the_same_seed_gives_the_same_map(run: Analyse, modules: tuple[Module, ...]) -> None:
    few = modules[-2:]
    assert run(SHORT, chosen=few) == run(SHORT, chosen=few)
    one, other = (run(NOISE.model_copy(update={"seed": seed}), chosen=few).modules for seed in (0, 1))
    assert one != other


@pytest.mark.parametrize("perturbation", [NoisePerturbation(seeds=3), SwapPerturbation(steps=1, seeds=2)])
def test_seeds_have_a_mean_and_a_spread(
    run: Analyse, modules: tuple[Module, ...], perturbation: NoisePerturbation | SwapPerturbation
) -> None:
    few = modules[-2:]
    together = run(AnalysisSpec(perturbation=perturbation, probes=8), chosen=few)
    one = perturbation.model_copy(update={"seeds": 1})
    # Seed 0's classifier and prompts stay, so that only the change differs.
    assert all(row.refusal_drift_spread > 0 and row.feature_drift_spread > 0 for row in together.modules)
    first = run(AnalysisSpec(perturbation=one, probes=8), chosen=few)
    assert together.modules != first.modules
    assert (together.joint_refusal_drift, together.joint_task_gain) == (
        first.joint_refusal_drift,
        first.joint_task_gain,
    )


@pytest.mark.parametrize("analysis", [NOISE, SHORT])
def test_the_analysis_says_how_far_it_is(run: Analyse, modules: tuple[Module, ...], analysis: AnalysisSpec) -> None:
    told = Ticks()
    found = run(analysis, chosen=modules[-3:], tick=told)
    assert told == sorted(told)
    assert len({total for _, total in told}) == 1
    assert all(0 <= done <= total for done, total in told)
    assert len(told) >= 3 + len(found.trace)


def test_where_the_classes_do_not_lie_apart_there_is_no_ground(
    run: Analyse, modules: tuple[Module, ...], prompts: ProbePrompts
) -> None:
    same = ProbePrompts(harmful=prompts.benign, benign=prompts.benign)

    def never(_steps: int, _seed: int) -> object:
        raise AssertionError("no probe may be trained")

    with pytest.raises(InvalidModel) as caught:
        run(SWAP, asked=same, probe=never)
    assert caught.value.code == "no_security_feature"
    assert caught.value.param == "strategy.analysis.min_auroc"
    found = run(SWAP.model_copy(update={"on_no_signal": "uniform"}), asked=same, probe=never)
    assert not found.usable
    assert set(found.robust) == {module.name for module in modules}
    assert (found.modules, found.trace, found.order) == ((), (), ())
    assert found.classifier.auroc < 0.9


class _Stop(Exception):
    """Stands for the service's interruption."""


@pytest.mark.parametrize(("analysis", "after"), [(NOISE, 2), (NOISE, 6), (SHORT, 1), (SHORT, 8)])
def test_an_interruption_leaves_the_base_untouched(
    base: BaseModel, run: Analyse, modules: tuple[Module, ...], analysis: AnalysisSpec, after: int
) -> None:
    before, told = fingerprint(base.model), 0

    def tick(_done: int, _total: int) -> None:
        nonlocal told
        told += 1
        if told == after:
            raise _Stop

    with pytest.raises(_Stop):
        run(analysis, chosen=modules[-4:], tick=tick)
    assert told == after
    assert fingerprint(base.model) == before
    assert not hasattr(base.model, "peft_config")


def test_a_probe_that_cannot_be_trained_leaves_the_base_untouched(
    base: BaseModel, run: Analyse, train_probe: TrainProbe
) -> None:
    before = fingerprint(base.model)

    @contextmanager
    def broken(steps: int, seed: int) -> Iterator[PeftModel]:
        with train_probe(steps, seed) as tuned:
            if steps == STEPS:
                raise _Stop
            yield tuned

    with pytest.raises(_Stop):
        run(SWAP, probe=broken)
    assert fingerprint(base.model) == before
