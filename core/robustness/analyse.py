"""The analysis: measures what modules and groups of them do to security and task, and searches the robust set.

The map holds the effect of each unit in the probe run. `swap`: the mean of two measurements, the unit's update alone in
the base model and the full probe without it, because modules can replace each other and either end alone is biased.
`gradient`: an integral along the path between both ends. `noise`: the unit's noise alone.
The search answers another question: what does a set do if it must carry the task by itself? It therefore moves the
update of a set alone, scaled up until moving everything breaks the model.
Not here: training the probe (the caller passes a function), strategies.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import assert_never, get_args

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from core.data.encoded import Encoded
from core.errors import InvalidModel
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.robustness.expected import FEW_UNITS, expect_measurements
from core.robustness.gradient import Halves, attribute
from core.robustness.perturb import Noise, PerturbedModel, Swap
from core.robustness.probe_activations import NO_EFFECT, Effect, ProbeActivations, effect
from core.robustness.search import (
    JointDrift,
    order_by_growth,
    order_units,
    proxy_drift,
    search_robust_set,
    select_by_parameter_share,
)
from core.robustness.stability import SeedMap, measure_stability
from core.robustness.summary import build_result, mean_effect, no_signal_result
from core.robustness.units import module_names, units
from core.robustness.watch import Attribute, ProbeWatch
from core.schemas.analysis import (
    AnalysisSpec,
    GradientPerturbation,
    NoisePerturbation,
    ProbeSpec,
    Proxy,
    SwapPerturbation,
    UnitKind,
)
from core.schemas.progress import OnProgress
from core.schemas.prompts import ProbePrompts
from core.schemas.robustness import RobustnessResult

MeasureSet = Callable[[frozenset[str]], Effect]
"""Returns the effect of perturbing exactly the modules with these names."""
EarlyStop = Callable[[nn.Module, int], bool]
"""Called after each step of a probe with (model, step from 1). Returns whether the probe ends now."""
TrainProbe = Callable[[ProbeSpec, int, EarlyStop], AbstractContextManager[PeftModel]]
"""Called with (options, seed, early_stop). Trains a temporary adapter on the job's data; the base model is unchanged
when the context ends."""

_SCALE_STEP, _MAX_SCALE = 1.2, 10.0


def analyse(
    base: BaseModel,
    modules: Sequence[Module],
    analysis: AnalysisSpec,
    prompts: ProbePrompts,
    rows: Sequence[Encoded],
    *,
    train_probe: TrainProbe,
    on_prepare: OnProgress,
    on_progress: OnProgress,
) -> RobustnessResult:
    """Measure every module and group on the probe prompts and on `rows` of the job's data, and search the robust set.

    With several seeds, the map is their mean; the search uses the update of the first seed, whose probe runs last, so
    that it is still there. `on_prepare` reports the progress of the base model's own features and answers,
    `on_progress` that of the measurements.

    Raises:
        InvalidModel: code `no_security_feature`; the base model does not separate harmful from benign prompts, and
            `on_no_signal` is `fail`.
    """
    activations = ProbeActivations(
        base, prompts, rows, count=analysis.probes, seed=analysis.seed, on_progress=on_prepare
    )
    quality = activations.direction.quality
    if quality.auroc < analysis.min_auroc:
        if analysis.on_no_signal == "fail":
            raise _no_security_feature(quality.auroc, analysis.min_auroc)
        return no_signal_result(analysis, quality, modules)
    run = _Run(base.model, tuple(modules), analysis, activations, train_probe=train_probe, on_progress=on_progress)
    maps: list[SeedMap] = []
    for number in range(1, analysis.perturbation.seeds):
        with run.perturbation(number) as perturbation:
            maps.append(run.map_units(perturbation))
    with run.perturbation(0) as perturbation:
        maps.append(run.map_units(perturbation))
        effects = [each.effects for each in maps]
        of_kind = [(unit, mean_effect(effects, unit)) for unit in run.units if unit.kind == analysis.unit]
        ordered, joint = order_units(of_kind, analysis), run.joint(perturbation)
        if len(ordered) <= FEW_UNITS:
            ordered = order_by_growth(ordered, joint)
        everything = perturbation.measure_set(module_names(ordered))
        if analysis.parameter_share is not None:
            found = select_by_parameter_share(ordered, share=analysis.parameter_share, joint=joint)
        else:
            found = search_robust_set(ordered, budget=analysis.budget, joint=joint)
    return build_result(
        analysis,
        quality,
        effects,
        everything=everything,
        ordered=ordered,
        found=found,
        stability=measure_stability(maps, analysis),
        probe_steps=[*run.steps[-1:], *run.steps[:-1]],  # the probe of the first seed ran last
        update_scale=run.update_scale,
    )


@dataclass(frozen=True)
class _Perturbation:
    """A change of the model that any set of modules can have, and its measured effects."""

    model: PerturbedModel
    measure_set: MeasureSet
    """Effect of a set, with the change as it is."""
    measure_scaled: MeasureSet
    """Security effect of a set with the change scaled up for the search. Its task gain may be NaN."""
    watch: ProbeWatch | None = None
    """What was measured while the probe was trained; None for noise."""

    def share(self, names: frozenset[str], everything: frozenset[str]) -> Effect:
        """What the set contributes to the whole change: the mean of both ends, or noise on the base model alone."""
        alone = self.measure_set(names)
        if isinstance(self.model, Noise):
            return alone
        whole, without = self.measure_set(everything), self.measure_set(everything - names)
        return (alone + whole - without) * 0.5


class _Run:
    """The state of one analysis."""

    def __init__(
        self,
        model: PreTrainedModel,
        modules: tuple[Module, ...],
        analysis: AnalysisSpec,
        activations: ProbeActivations,
        *,
        train_probe: TrainProbe,
        on_progress: OnProgress,
    ) -> None:
        self._model, self._modules, self._analysis = model, modules, analysis
        self._activations, self._train_probe, self._on_progress = activations, train_probe, on_progress
        self.units = tuple(unit for kind in get_args(UnitKind) for unit in units(modules, kind, analysis.bands))
        self.steps: list[int] = []
        """Steps of the probes that have run."""
        self.update_scale = 1.0
        """Factor on the update that the search moves."""
        self._names = frozenset(module.name for module in modules)
        self._at_base = activations.measure(model)
        self._done, self._expected = 0, expect_measurements(analysis, Counter(unit.kind for unit in self.units))

    @contextmanager
    def perturbation(self, number: int) -> Iterator[_Perturbation]:
        """The perturbation of a seed, by its number from 0; a probe is trained for it if it needs one."""
        seed = self._analysis.seed + number
        match self._analysis.perturbation:
            case NoisePerturbation(relative_norm=norm):
                noise = Noise(self._model, self._modules, relative_norm=norm, seed=seed)
                measure_set = self._measuring(noise, self._activations)
                yield _Perturbation(noise, measure_set, measure_scaled=measure_set)
            case (SwapPerturbation() | GradientPerturbation()) as probe:
                watch = ProbeWatch(probe, self._analysis.proxy, self._refusal_drift, self._attribution(probe, number))
                with self._train_probe(probe, seed, watch.early_stop) as tuned:
                    self.steps.append(watch.last_step)
                    swap = Swap(tuned)
                    measure_set = self._measuring(swap, self._activations)
                    yield _Perturbation(swap, measure_set, self._measuring_scaled(swap, probe), watch)
            case _:
                assert_never(self._analysis.perturbation)

    def map_units(self, perturbation: _Perturbation) -> SeedMap:
        """The effect of every unit."""
        watch, swap = perturbation.watch, perturbation.model
        if watch is not None and watch.attribute is not None and isinstance(swap, Swap):
            with swap.perturbed(self._names):
                halves = watch.attribute(swap.model, None)
            whole = {name: first + second for name, (first, second) in halves.items()}
            effects = {unit: sum((whole[each.name] for each in unit.members), NO_EFFECT) for unit in self.units}
            return SeedMap(effects, halves, watch.at_break)
        return SeedMap({unit: perturbation.share(unit.names, self._names) for unit in self.units})

    def _attribution(self, probe: SwapPerturbation | GradientPerturbation, number: int) -> Attribute | None:
        """The function that measures modules by the gradients of a probe, if the perturbation does."""
        if not isinstance(probe, GradientPerturbation):
            return None
        own = self._activations.share(number, of=probe.seeds)

        def measure(tuned: PeftModel, only: Proxy | None) -> dict[str, Halves]:
            count = self._count_measurement
            return attribute(own, tuned, self._modules, points=probe.points, on_point=count, only=only)

        return measure

    def joint(self, perturbation: _Perturbation) -> JointDrift:
        """The function that measures the drift of a set for the search."""
        return lambda chosen: proxy_drift(perturbation.measure_scaled(module_names(chosen)), self._analysis)

    def _measuring(self, model: PerturbedModel, activations: ProbeActivations) -> MeasureSet:
        @cache
        def measure_set(names: frozenset[str]) -> Effect:
            self._count_measurement()
            with model.perturbed(names):
                return effect(self._at_base, activations.measure(model.model))

        return measure_set

    def _measuring_scaled(self, swap: Swap, probe: SwapPerturbation | GradientPerturbation) -> MeasureSet:
        @cache
        def measuring() -> MeasureSet:  # the scale is only searched for the seed whose update the search uses
            scaled = swap.scaled(self._find_scale(swap, probe))
            return self._measuring(scaled, self._activations.security_only())

        def measure_set(names: frozenset[str]) -> Effect:
            return measuring()(names)

        return measure_set

    def _find_scale(self, swap: Swap, probe: SwapPerturbation | GradientPerturbation) -> float:
        """The smallest tried factor on the update with which moving everything breaks the model."""
        self.update_scale = probe.update_scale
        while probe.scale_until_drift and self.update_scale * _SCALE_STEP <= _MAX_SCALE:
            with swap.scaled(self.update_scale).perturbed(self._names):
                drift = self._refusal_drift(swap.model)
            if drift >= probe.scale_until_drift:
                break
            self.update_scale *= _SCALE_STEP
        return self.update_scale

    def _refusal_drift(self, model: nn.Module) -> float:
        """Refusal drift of the model in its current state, nats per token."""
        return self._activations.refusal_nll(model) - self._at_base.refusal_nll

    def _count_measurement(self) -> None:
        self._on_progress(min(self._done, self._expected), self._expected)
        self._done += 1


def _no_security_feature(auroc: float, min_auroc: float) -> InvalidModel:
    return InvalidModel(
        f"The base model does not separate harmful from benign prompts: the AUROC of its security feature on held-out "
        f"prompts is {auroc:.2f}, below min_auroc ({min_auroc:g}). A robustness map would have no meaning. Use an "
        "aligned base model, or set on_no_signal to `uniform`.",
        code="no_security_feature",
        param="strategy.analysis.min_auroc",
    )
