"""A small analysis on the testbed measures every module and group, searches, and leaves the base model unchanged."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from peft import PeftModel

from core.data.encoded import Encoded
from core.errors import InvalidModel
from core.lm.load import BaseModel
from core.lm.modules import Module, find_modules
from core.robustness.analyse import EarlyStop, TrainProbe, analyse
from core.schemas.analysis import (
    AnalysisSpec,
    GradientPerturbation,
    NoisePerturbation,
    Perturbation,
    ProbeSpec,
    SwapPerturbation,
)
from core.schemas.progress import OnProgress
from core.schemas.prompts import ProbePrompts
from core.schemas.robustness import ModuleRobustness, RobustnessResult
from tests.core.helpers import FAMILIES, ProgressLog, fingerprint, ignore, tiny_base
from tests.core.robustness.conftest import FAR_APART, probe_of

NOISE = AnalysisSpec(perturbation=NoisePerturbation(seeds=1), probes=8, unit="module")
STEPS = 4
SWAP = AnalysisSpec(perturbation=SwapPerturbation(steps=STEPS), probes=8)
GRADIENT = AnalysisSpec(perturbation=GradientPerturbation(steps=STEPS, seeds=1, points=3), probes=8)
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
        probe_prompts: ProbePrompts = prompts,
        probe: TrainProbe = train_probe,
        on_progress: OnProgress = ignore,
    ) -> RobustnessResult:
        return analyse(
            base, chosen, analysis, probe_prompts, rows, train_probe=probe, on_prepare=ignore, on_progress=on_progress
        )

    return _run


def assert_whole(found: RobustnessResult, modules: tuple[Module, ...]) -> None:
    names = [module.name for module in modules]
    assert [row.module for row in found.modules] == names
    assert [(row.layer, row.type, row.parameters) for row in found.modules] == [
        (module.layer, module.type, module.parameters) for module in modules
    ]
    unit = found.analysis.unit
    of_kind = names if unit == "module" else [group.name for group in found.groups if group.kind == unit]
    assert sorted(found.order) == sorted(of_kind)
    assert set(found.robust) <= set(names)
    for kind in ("circuit", "type", "band"):
        counts = [(each.robust, each.modules) for each in found.chosen if each.kind == kind]
        assert [sum(each) for each in zip(*counts, strict=True)] == [len(found.robust), len(names)]
    for kind in ("circuit", "type", "band", "type_band"):
        assert sum(group.modules for group in found.groups if group.kind == kind) == len(names)
    assert found.usable
    assert found.classifier.auroc >= found.analysis.min_auroc
    assert 1 <= found.classifier.layer <= 32
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


@pytest.fixture(scope="module")
def gradient(run: Analyse, modules: tuple[Module, ...]) -> RobustnessResult:
    return run(GRADIENT)


def test_noise(noise: RobustnessResult, modules: tuple[Module, ...]) -> None:
    assert_whole(noise, modules)
    assert noise.analysis == NOISE
    assert len({row.refusal_drift for row in noise.modules}) > 30
    assert all(row.refusal_drift_spread == row.feature_drift_spread == 0.0 for row in noise.modules)
    assert noise.trace[0].phase == "all"
    assert noise.trace[0].size == len(modules)
    assert noise.trace[0].drift == pytest.approx(noise.joint_refusal_drift)
    assert noise.probe_steps == ()


def test_the_robust_set_drifts_within_the_budget(
    noise: RobustnessResult, swap: RobustnessResult, gradient: RobustnessResult
) -> None:
    for found in (noise, swap, gradient):
        accepted = [step for step in found.trace if step.accepted]
        if found.robust:
            assert accepted[-1].size == len(found.robust)
            assert accepted[-1].drift <= found.analysis.budget * found.trace[0].drift


def test_swap(swap: RobustnessResult, last_layers: tuple[Module, ...]) -> None:
    assert_whole(swap, last_layers)
    assert swap.joint_task_gain > 0.05, "the probe has learnt nothing"
    assert swap.probe_steps == (STEPS,)


def test_gradient(gradient: RobustnessResult, modules: tuple[Module, ...]) -> None:
    assert_whole(gradient, modules)
    assert gradient.probe_steps == (STEPS,)
    for field in ("refusal_drift", "feature_drift", "task_gain"):
        joint = getattr(gradient, f"joint_{field}")
        assert sum(getattr(row, field) for row in gradient.modules) == pytest.approx(joint, rel=0.01, abs=1e-3)
        for group in (each for each in gradient.groups if each.kind != "circuit"):
            rows = members(gradient, group.kind, group.name)
            # Exact, because the map must not depend on the hash seed of the process.
            assert getattr(group, field) == sum((getattr(row, field) for row in rows), 0.0), group.name


def test_the_search_scales_the_update_of_a_set_alone(run: Analyse, modules: tuple[Module, ...]) -> None:
    def searched(update_scale: float, chosen: tuple[Module, ...] = modules) -> RobustnessResult:
        perturbation = GradientPerturbation(
            steps=STEPS, seeds=1, points=1, update_scale=update_scale, scale_until_drift=0
        )
        return run(AnalysisSpec(perturbation=perturbation, probes=8, parameter_share=0.5), chosen=chosen)

    plain, far = searched(1.0), searched(4.0)
    assert far.modules == plain.modules, "the map is of the probe as it is"
    assert (plain.update_scale, far.update_scale) == (1.0, 4.0)
    assert plain.trace[0].drift == pytest.approx(plain.joint_refusal_drift)
    assert far.trace[0].drift != pytest.approx(plain.trace[0].drift, rel=0.5)
    # The fixture's probe trains all modules each time; only the perturbed modules differ.
    own = tuple(module for module in modules if module.name in far.robust)
    assert 0 < len(own) < len(modules)
    assert far.trace[1].drift == pytest.approx(searched(4.0, own).trace[0].drift, abs=1e-5)


def test_the_update_is_scaled_until_the_model_breaks(run: Analyse) -> None:
    def searched(until: float) -> RobustnessResult:
        perturbation = GradientPerturbation(steps=STEPS, seeds=1, points=1, update_scale=1.5, scale_until_drift=until)
        return run(AnalysisSpec(perturbation=perturbation, probes=8, parameter_share=0.5))

    most = searched(1e6)
    assert 10 / 1.2 < most.update_scale <= 10, "and no further"
    part = most.trace[0].drift / 20  # drifts rise steeply, from little to all within a few steps of the stretch
    there = searched(part)
    assert 1.5 < there.update_scale < most.update_scale
    assert part <= there.trace[0].drift < most.trace[0].drift


def members(found: RobustnessResult, kind: str, name: str) -> list[ModuleRobustness]:
    """The rows of a group's modules."""
    (low, high) = bounds(name)
    types = {row.type for row in found.modules} & {name.partition(",")[0]} if kind != "band" else None
    return [row for row in found.modules if low <= row.layer <= high and (types is None or row.type in types)]


def bounds(name: str) -> tuple[int, int]:
    if "layer" not in name:
        return 0, 99
    ends = name.rpartition(" ")[2].split("-")
    return int(ends[0]), int(ends[-1])


def test_groups_under_gradient_are_the_sum_of_their_members(gradient: RobustnessResult) -> None:
    assert {group.kind for group in gradient.groups} == {"circuit", "type", "band", "type_band"}
    for group in gradient.groups:
        if group.kind == "circuit":
            continue
        rows = members(gradient, group.kind, group.name)
        assert (len(rows), sum(row.parameters for row in rows)) == (group.modules, group.parameters)
        for field in ("refusal_drift", "feature_drift", "task_gain"):
            assert getattr(group, field) == pytest.approx(sum(getattr(row, field) for row in rows), abs=1e-6)


def test_groups_under_swap_are_measured_jointly(
    run: Analyse, swap: RobustnessResult, last_layers: tuple[Module, ...]
) -> None:
    v = next(group for group in swap.groups if (group.kind, group.name) == ("type", "v"))
    chosen = tuple(module for module in last_layers if module.type == "v")
    others = tuple(module for module in last_layers if module.type != "v")
    # The fixture's probe trains all modules each time; only the perturbed modules differ.
    everything = np.array(joint(swap))
    alone, without = (np.array(joint(run(SWAP, chosen=perturbed))) for perturbed in (chosen, others))
    found = (v.refusal_drift, v.feature_drift, v.task_gain)
    assert found == pytest.approx(((alone + everything - without) / 2).tolist(), abs=1e-5)


def test_groups_under_noise_are_measured_jointly(run: Analyse) -> None:
    loud = run(NOISE.model_copy(update={"perturbation": NoisePerturbation(seeds=1, relative_norm=1.0)}))
    for group in loud.groups:
        if group.kind in ("type_band", "circuit"):
            continue
        rows = members(loud, group.kind, group.name)
        assert len(rows) == group.modules
        together = sum(row.refusal_drift for row in rows)
        assert group.refusal_drift != pytest.approx(together, rel=1e-3), group.name


def test_swap_drift_is_the_mean_of_adding_and_removing_a_module(run: Analyse, modules: tuple[Module, ...]) -> None:
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


@pytest.mark.parametrize(
    "perturbation",
    [NoisePerturbation(seeds=3), SwapPerturbation(steps=1, seeds=2), GradientPerturbation(steps=1, seeds=2)],
)
def test_seeds_have_a_mean_and_a_spread(run: Analyse, modules: tuple[Module, ...], perturbation: Perturbation) -> None:
    few = modules[-2:]
    together = run(AnalysisSpec(perturbation=perturbation, probes=8), chosen=few)
    one = perturbation.model_copy(update={"seeds": 1})
    # Seed 0's classifier and prompts stay, so that only the change differs.
    assert all(row.refusal_drift_spread > 0 and row.feature_drift_spread > 0 for row in together.modules)
    assert all(row.refusal_drift_spread > 0 and row.feature_drift_spread > 0 for row in together.groups)
    assert together.probe_steps == (() if perturbation.kind == "noise" else (1, 1))
    first = run(AnalysisSpec(perturbation=one, probes=8), chosen=few)
    assert together.modules != first.modules
    assert (together.joint_refusal_drift, together.joint_task_gain) == (
        first.joint_refusal_drift,
        first.joint_task_gain,
    )


@pytest.mark.parametrize("analysis", [NOISE, SHORT, GRADIENT])
def test_the_analysis_reports_progress(run: Analyse, modules: tuple[Module, ...], analysis: AnalysisSpec) -> None:
    progress = ProgressLog()
    found = run(analysis, chosen=modules[-3:], on_progress=progress)
    assert progress == sorted(progress)
    assert len({total for _, total in progress}) == 1
    assert all(0 <= done <= total for done, total in progress)
    assert len(progress) >= 3 + len(found.trace) / 2


def test_inseparable_prompts_fail_or_give_uniform_rates(
    run: Analyse, modules: tuple[Module, ...], prompts: ProbePrompts
) -> None:
    same = ProbePrompts(harmful=prompts.benign, benign=prompts.benign)

    def never(_wanted: ProbeSpec, _seed: int, _enough: EarlyStop) -> object:
        raise AssertionError("no probe may be trained")

    with pytest.raises(InvalidModel) as caught:
        run(SWAP, probe_prompts=same, probe=never)
    assert caught.value.code == "no_security_feature"
    assert caught.value.param == "strategy.analysis.min_auroc"
    found = run(SWAP.model_copy(update={"on_no_signal": "uniform"}), probe_prompts=same, probe=never)
    assert not found.usable
    assert set(found.robust) == {module.name for module in modules}
    assert (found.modules, found.trace, found.order) == ((), (), ())
    assert found.classifier.auroc < 0.9


class _Stop(Exception):
    """Stands for the service's interruption."""


@pytest.mark.parametrize(
    ("analysis", "after"), [(NOISE, 2), (NOISE, 5), (SHORT, 1), (SHORT, 8), (GRADIENT, 2), (GRADIENT, 6)]
)
def test_an_interruption_leaves_the_base_untouched(
    base: BaseModel, run: Analyse, modules: tuple[Module, ...], analysis: AnalysisSpec, after: int
) -> None:
    before, progress = fingerprint(base.model), 0

    def on_progress(_done: int, _total: int) -> None:
        nonlocal progress
        progress += 1
        if progress == after:
            raise _Stop

    with pytest.raises(_Stop):
        run(analysis, chosen=modules[-4:], on_progress=on_progress)
    assert progress == after
    assert fingerprint(base.model) == before
    assert not hasattr(base.model, "peft_config")


def test_a_probe_that_cannot_be_trained_leaves_the_base_untouched(
    base: BaseModel, run: Analyse, train_probe: TrainProbe
) -> None:
    before = fingerprint(base.model)

    @contextmanager
    def broken(wanted: ProbeSpec, seed: int, early_stop: EarlyStop) -> Iterator[PeftModel]:
        with train_probe(wanted, seed, early_stop) as tuned:
            if wanted.steps == STEPS:
                raise _Stop
            yield tuned

    with pytest.raises(_Stop):
        run(SWAP, probe=broken)
    assert fingerprint(base.model) == before


def test_the_probe_stops_where_it_has_broken_the_model(
    run: Analyse, base: BaseModel, modules: tuple[Module, ...], rows: tuple[Encoded, ...]
) -> None:
    breaking = probe_of(base, modules, rows, rate=2e-2)

    def stopped(stop_at_drift: float, steps: int) -> RobustnessResult:
        perturbation = GradientPerturbation(steps=steps, stop_at_drift=stop_at_drift, seeds=1, points=1)
        return run(AnalysisSpec(perturbation=perturbation, probes=8), probe=breaking)

    early = stopped(1e-9, 32)
    (steps,) = early.probe_steps
    assert steps in (5, 10, 20), "the steps after which it is checked"
    assert early.joint_refusal_drift > 0
    assert early.joint_refusal_drift == stopped(1e6, steps).joint_refusal_drift
    assert "break" not in {each.at for each in early.stability}, "it ended there"
    later = stopped(1e6, 32)
    assert later.probe_steps[0] in (10, 20, 32), "twice the step at which refusals broke, or the most"
    assert [(each.between, each.at, each.modules) for each in later.stability] == [
        ("halves", "break", len(modules)),
        ("break_and_end", "end", len(modules)),
        ("halves", "end", len(modules)),
    ]


def test_probe_steps_are_reported_for_each_seed(
    run: Analyse, modules: tuple[Module, ...], train_probe: TrainProbe
) -> None:
    @contextmanager
    def longer_each_time(wanted: ProbeSpec, seed: int, early_stop: EarlyStop) -> Iterator[PeftModel]:
        with train_probe(wanted, seed, early_stop) as tuned:
            early_stop(tuned, 1 + seed)
            yield tuned

    perturbation = GradientPerturbation(steps=1, seeds=3, points=1)
    found = run(AnalysisSpec(perturbation=perturbation, probes=8), chosen=modules[-7:], probe=longer_each_time)
    assert found.probe_steps == (1, 2, 3)


def test_the_robust_set_can_have_a_share_of_the_parameters(run: Analyse, modules: tuple[Module, ...]) -> None:
    found = run(GRADIENT.model_copy(update={"parameter_share": 0.5, "unit": "module"}))
    size = {module.name: module.parameters for module in modules}
    taken, whole = sum(size[name] for name in found.robust), sum(size.values())
    assert 0.5 * whole - max(size.values()) < taken <= 0.5 * whole
    assert [step.phase for step in found.trace] == ["all", "parameter_share"]
    assert found.trace[1].drift != found.trace[0].drift


def test_searching_32_layers_takes_at_most_40_measurements(
    base: BaseModel, rows: tuple[Encoded, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILIES, "llama", FAMILIES["llama"] | {"num_hidden_layers": 32, "hidden_size": 32})
    deep = tiny_base("llama", base)
    modules, progress = find_modules(deep.model), ProgressLog()
    assert len(modules) == 7 * 32
    perturbation = GradientPerturbation(steps=3, seeds=1, points=2)
    analysis = AnalysisSpec(perturbation=perturbation, probes=8, unit="module", min_auroc=0.5, budget=0.3)
    found = analyse(
        deep,
        modules,
        analysis,
        FAR_APART,
        rows,
        train_probe=probe_of(deep, modules, rows, rate=1e-2),
        on_prepare=ignore,
        on_progress=progress,
    )
    assert_whole(found, modules)
    activations = len(progress) - perturbation.points
    assert len(found.trace) <= activations <= 40
    assert 0 < len(found.robust) < 224
