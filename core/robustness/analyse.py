"""The analysis: modules and groups moved and measured, then the search. The floor that learning rates stand on.

The map says what each unit did in the probe. Under `swap` that is the mean of two readings: what its update does alone
in the base, and what taking it out of the full probe undoes. Modules stand in for each other, so either end alone
misjudges them. Under `gradient` it is integrated along the way between both ends, under `noise` the first reading. The
search asks something else: what a set would do that carries the task without the others. So it moves a set's update
alone, and as far as breaks the model where everything is moved.
Not here: training the probe (the caller hands in how), strategies.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import assert_never

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from core.data.template import Encoded
from core.errors import InvalidModel
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.robustness.gradient import attribute
from core.robustness.perturb import Moved, Noise, Swap
from core.robustness.readings import NO_EFFECT, Effect, Readings, effect
from core.robustness.search import Found, JointDrift, by_parameter_share, drift_of, grown, order, search
from core.robustness.summary import Measured, result, without_ground
from core.robustness.units import Unit, names_of, units
from core.schemas.analysis import AnalysisSpec, GradientPerturbation, NoisePerturbation, SwapPerturbation, UnitKind
from core.schemas.progress import OnProgress
from core.schemas.prompts import ProbePrompts
from core.schemas.robustness import RobustnessResult

Ask = Callable[[frozenset[str]], Effect]
"""What moving exactly these modules does, by name."""
Enough = Callable[[nn.Module, int], bool]
"""Asked after each step of a probe with the model and the step, from 1: whether the probe may stop here."""
TrainProbe = Callable[[int, int, Enough], AbstractContextManager[PeftModel]]
"""Called with (steps at most, seed, enough): a throw-away adapter tuned on the job's data, taken off again after."""

_KINDS: tuple[UnitKind, ...] = ("module", "circuit", "type", "band", "type_band")
_LOOK_EVERY = 10
_FEW = 8
"""So many units are ordered by how they add to a growing set: 35 joint evaluations at most."""
_FURTHER, _MOST_STRETCH = 1.2, 10.0


def analyse(
    base: BaseModel,
    modules: Sequence[Module],
    analysis: AnalysisSpec,
    prompts: ProbePrompts,
    rows: Sequence[Encoded],
    *,
    train_probe: TrainProbe,
    prepared: OnProgress,
    on_progress: OnProgress,
) -> RobustnessResult:
    """Measure every module and group on `rows` of the job's data and on the probe prompts, and search the robust set.

    `prepared` hears of the base's own features and answers, `tick` of the readings. With several seeds the map is
    their mean; the search moves sets of modules by the first seed's change.

    Raises:
        InvalidModel: code `no_security_feature`; the base model does not tell harmful from benign prompts, and the job
            asked to fail then.
    """
    readings = Readings(base, prompts, rows, count=analysis.probes, seed=analysis.seed, on_progress=prepared)
    quality = readings.direction.quality
    if quality.auroc < analysis.min_auroc:
        return _no_ground(analysis, without_ground(analysis, quality, modules))
    run = _Run(base.model, tuple(modules), analysis, readings, train_probe=train_probe, on_progress=on_progress)
    first, *others = range(analysis.seed, analysis.seed + analysis.perturbation.seeds)
    maps: list[dict[Unit, Effect]] = []
    for seed in others:
        with run.changed(seed) as changed:
            maps.append(run.map(changed))
    with run.changed(first) as changed:
        maps.append(run.map(changed))
        measured = Measured(maps)
        of_kind = [(unit, measured.mean(unit)) for unit in run.units if unit.kind == analysis.unit]
        ordered = run.ordered(changed, order(of_kind, analysis))
        everything = changed.effect(names_of(ordered))
        found = run.search(changed, ordered)
    return result(
        analysis,
        quality,
        measured,
        everything=everything,
        ordered=ordered,
        found=found,
        probe_steps=[*run.steps[-1:], *run.steps[:-1]],  # the first seed's was the last
        update_scale=run.update_scale,
    )


@dataclass(frozen=True)
class _Changed:
    """The model with a change that can be put on any set of modules, and what that does."""

    moved: Moved
    effect: Ask
    """Of the change as it is."""
    carrying: Ask
    """Of the change as far as it would go in a set that carries the task by itself; what it gains may be NaN."""
    alone: bool
    """Whether the map reads a set from the base only, and not also from the other end."""

    def share(self, names: frozenset[str], everything: frozenset[str]) -> Effect:
        """What exactly these do in the whole change; the mean of both ends where there are two."""
        alone = self.effect(names)
        if self.alone:
            return alone
        whole, without = self.effect(everything), self.effect(everything - names)
        return (alone + whole - without) * 0.5


class _Run:
    """One analysis under way: what it needs, and how far it is."""

    def __init__(
        self,
        model: PreTrainedModel,
        modules: tuple[Module, ...],
        analysis: AnalysisSpec,
        readings: Readings,
        *,
        train_probe: TrainProbe,
        on_progress: OnProgress,
    ) -> None:
        self._model, self._modules, self._analysis = model, modules, analysis
        self._readings, self._train_probe, self._tick = readings, train_probe, on_progress
        self.units = tuple(unit for kind in _KINDS for unit in units(modules, kind, analysis.bands))
        self.steps: list[int] = []
        self.update_scale = 1.0
        """How many times as large the update is that the search moves."""
        self._names = frozenset(module.name for module in modules)
        self._at_base = readings.read(model)
        self._last_step = 0
        self._done, self._expected = 0, self._readings_expected()

    @contextmanager
    def changed(self, seed: int) -> Iterator[_Changed]:
        """The model with this seed's change."""
        match self._analysis.perturbation:
            case NoisePerturbation(relative_norm=norm):
                noise = Noise(self._model, self._modules, relative_norm=norm, seed=seed)
                ask = self._asking(noise, self._readings)
                yield _Changed(noise, ask, carrying=ask, alone=True)
            case (SwapPerturbation() | GradientPerturbation()) as probe:
                with self._train_probe(probe.steps, seed, self._enough) as tuned:
                    self.steps.append(self._last_step)
                    swap = Swap(tuned)
                    ask = self._asking(swap, self._readings)
                    yield _Changed(swap, ask, carrying=self._stretching(swap, probe), alone=False)
            case _:
                assert_never(self._analysis.perturbation)

    def map(self, changed: _Changed) -> dict[Unit, Effect]:
        """What every unit does."""
        perturbation = self._analysis.perturbation
        tuned = changed.moved.model
        if isinstance(perturbation, GradientPerturbation) and isinstance(tuned, PeftModel):
            with changed.moved.moved(self._names):
                shares = attribute(self._readings, tuned, self._modules, points=perturbation.points, count=self._count)
            return {unit: sum((shares[name] for name in unit.names), NO_EFFECT) for unit in self.units}
        return {unit: changed.share(unit.names, self._names) for unit in self.units}

    def ordered(self, changed: _Changed, units: tuple[Unit, ...]) -> tuple[Unit, ...]:
        """Few units, such as circuits, as they enter a growing set; many as the map has them."""
        return units if len(units) > _FEW else grown(units, self._joint(changed))

    def search(self, changed: _Changed, ordered: Sequence[Unit]) -> Found:
        """The robust set."""
        analysis, joint = self._analysis, self._joint(changed)
        if analysis.parameter_share is not None:
            return by_parameter_share(ordered, share=analysis.parameter_share, joint=joint)
        return search(ordered, budget=analysis.budget, joint=joint)

    def _joint(self, changed: _Changed) -> JointDrift:
        return lambda chosen: drift_of(changed.carrying(names_of(chosen)), self._analysis)

    def _asking(self, moved: Moved, readings: Readings) -> Ask:
        known: dict[frozenset[str], Effect] = {}

        def ask(names: frozenset[str]) -> Effect:
            if names not in known:
                self._count()
                with moved.moved(names):
                    known[names] = effect(self._at_base, readings.read(moved.model))
            return known[names]

        return ask

    def _stretching(self, swap: Swap, probe: SwapPerturbation | GradientPerturbation) -> Ask:
        asking: Ask | None = None

        def ask(names: frozenset[str]) -> Effect:
            nonlocal asking
            if asking is None:  # not before it is asked: only the first seed's change is searched
                stretched = swap.stretched(self._find_stretch(swap, probe))
                asking = self._asking(stretched, self._readings.of_security())
            return asking(names)

        return ask

    def _find_stretch(self, swap: Swap, probe: SwapPerturbation | GradientPerturbation) -> float:
        """How many times as large an update breaks the model."""
        self.update_scale = probe.update_scale
        while probe.scale_until_drift and self.update_scale * _FURTHER <= _MOST_STRETCH:
            with swap.stretched(self.update_scale).moved(self._names):
                drift = self._refusal_drift(swap.model)
            if drift >= probe.scale_until_drift:
                break
            self.update_scale *= _FURTHER
        return self.update_scale

    def _enough(self, model: nn.Module, step: int) -> bool:
        """Whether the break has begun: refusals have drifted by as much as was asked for."""
        perturbation = self._analysis.perturbation
        self._last_step = step
        if isinstance(perturbation, NoisePerturbation) or step % _LOOK_EVERY or step == perturbation.steps:
            return False  # a probe that ends anyway need not be looked at
        training = model.training
        model.eval()
        drift = self._refusal_drift(model)
        model.train(training)
        return drift >= perturbation.stop_at_drift

    def _refusal_drift(self, model: nn.Module) -> float:
        """Of the model as it is now, in nats per token."""
        return self._readings.refusal_nll(model) - self._at_base.refusal_nll

    def _count(self) -> None:
        self._tick(min(self._done, self._expected), self._expected)
        self._done += 1

    def _readings_expected(self) -> int:
        """About so many readings; the search ends earlier as a rule."""
        match self._analysis.perturbation:
            case NoisePerturbation(seeds=seeds):
                each = len(self.units)
            case SwapPerturbation(seeds=seeds):
                each = 2 * len(self.units)
            case GradientPerturbation(seeds=seeds, points=points):
                each = points
            case _:
                assert_never(self._analysis.perturbation)
        searched = sum(unit.kind == self._analysis.unit for unit in self.units)
        growing = searched * (searched + 1) // 2 if searched <= _FEW else searched.bit_length() + 10
        return seeds * each + growing + 1


def _no_ground(analysis: AnalysisSpec, otherwise: RobustnessResult) -> RobustnessResult:
    if analysis.on_no_signal == "fail":
        raise InvalidModel(
            f"The base model does not separate harmful from benign prompts: its security feature has an AUROC of "
            f"{otherwise.classifier.auroc:.2f} on held-out prompts, and {analysis.min_auroc:g} is asked for. A "
            "robustness map would mean nothing. Use an aligned base model, or set `on_no_signal` to `uniform`.",
            code="no_security_feature",
            param="strategy.analysis.min_auroc",
        )
    return otherwise
