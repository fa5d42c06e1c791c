"""The analysis: every module moved and measured, then the search. The floor that learning rates stand on.

Drift of a module under `swap` is the mean of two readings: what its update does alone in the base, and what taking it
out of the full probe undoes. Modules stand in for each other, so either end alone misjudges them.
Under `noise` it is the first reading only.
Not here: training the probe (the caller hands in how), strategies.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import assert_never

import numpy as np
from peft import PeftModel

from core.data.template import Encoded
from core.errors import InvalidModel
from core.lm.generate import Tick
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.robustness.perturb import Moved, Noise, Swap
from core.robustness.probe import Probe, Reading
from core.robustness.search import Found, order, search
from core.spec.analysis import AnalysisSpec, NoisePerturbation, SwapPerturbation
from core.spec.results import ModuleRobustness, RobustnessResult
from core.spec.security import ProbePrompts

TrainProbe = Callable[[int, int], AbstractContextManager[PeftModel]]
"""Called with (steps, seed): a throw-away adapter tuned on the job's data, taken off again afterwards."""


@dataclass(frozen=True)
class _Effect:
    """What a change of the model did. Positive drift is less safe, positive gain is better at the task."""

    feature_drift: float
    refusal_drift: float
    task_gain: float


def analyse(
    base: BaseModel,
    modules: Sequence[Module],
    analysis: AnalysisSpec,
    prompts: ProbePrompts,
    rows: Sequence[Encoded],
    *,
    train_probe: TrainProbe,
    prepared: Tick,
    tick: Tick,
) -> RobustnessResult:
    """Measure every module on `rows` of the job's data and on the probe prompts, and search the robust subset.

    `prepared` hears of the base's own features and answers, `tick` of the readings. With several seeds the map is
    their mean; the search moves sets of modules by the first seed's change.

    Raises:
        InvalidModel: code `no_security_feature`; the base model does not tell harmful from benign prompts, and the job
            asked to fail then.
    """
    probe = Probe(base, prompts, rows, count=analysis.probes, seed=analysis.seed, tick=prepared)
    if probe.direction.quality.auroc < analysis.min_auroc:
        return _without_ground(analysis, modules, probe)
    reader = _Reader(probe, probe.read(base.model), tick, _readings(analysis, len(modules)))
    first, *others = range(analysis.seed, analysis.seed + analysis.perturbation.seeds)
    maps = []
    for seed in others:
        with _changed(base, modules, analysis, train_probe, seed) as changed:
            maps.append(_map(reader, changed, modules, analysis))
    with _changed(base, modules, analysis, train_probe, first) as changed:
        maps.append(_map(reader, changed, modules, analysis))
        found_map = tuple(_summary(module, effects) for module, *effects in zip(modules, *maps, strict=True))
        ordered = order(found_map, analysis)
        everything = reader.effect(changed, ordered)
        found = search(
            ordered, budget=analysis.budget, joint=lambda names: _drift(reader.effect(changed, names), analysis)
        )
    return _result(analysis, probe, found_map=found_map, everything=everything, ordered=ordered, found=found)


class _Reader:
    """Reads effects against the unchanged base, and says how far the whole analysis is."""

    def __init__(self, probe: Probe, at_base: Reading, tick: Tick, expected: int) -> None:
        self._probe, self._at_base, self._tick, self._expected, self._done = probe, at_base, tick, expected, 0

    def effect(self, changed: Moved, names: Sequence[str]) -> _Effect:
        """What moving exactly these modules does."""
        self._tick(min(self._done, self._expected), self._expected)
        self._done += 1
        with changed.moved(names):
            reading = self._probe.read(changed.model)
        return _Effect(
            feature_drift=reading.feature_drift - self._at_base.feature_drift,
            refusal_drift=reading.refusal_nll - self._at_base.refusal_nll,
            task_gain=self._at_base.task_loss - reading.task_loss,
        )


def _readings(analysis: AnalysisSpec, modules: int) -> int:
    each = 1 if isinstance(analysis.perturbation, NoisePerturbation) else 2
    return analysis.perturbation.seeds * modules * each + modules.bit_length() + 10


@contextmanager
def _changed(
    base: BaseModel, modules: Sequence[Module], analysis: AnalysisSpec, train_probe: TrainProbe, seed: int
) -> Iterator[Moved]:
    match analysis.perturbation:
        case NoisePerturbation(relative_norm=norm):
            yield Noise(base.model, modules, relative_norm=norm, seed=seed)
        case SwapPerturbation(steps=steps):
            with train_probe(steps, seed) as tuned:
                yield Swap(tuned)
        case _:
            assert_never(analysis.perturbation)


def _map(reader: _Reader, changed: Moved, modules: Sequence[Module], analysis: AnalysisSpec) -> list[_Effect]:
    names = [module.name for module in modules]
    alone = [reader.effect(changed, [name]) for name in names]
    if isinstance(analysis.perturbation, NoisePerturbation):
        return alone
    everything = reader.effect(changed, names)
    without = [reader.effect(changed, [other for other in names if other != name]) for name in names]
    return [_middle(one, everything, rest) for one, rest in zip(alone, without, strict=True)]


def _middle(alone: _Effect, everything: _Effect, without: _Effect) -> _Effect:
    return _Effect(
        feature_drift=(alone.feature_drift + everything.feature_drift - without.feature_drift) / 2,
        refusal_drift=(alone.refusal_drift + everything.refusal_drift - without.refusal_drift) / 2,
        task_gain=(alone.task_gain + everything.task_gain - without.task_gain) / 2,
    )


def _summary(module: Module, effects: Sequence[_Effect]) -> ModuleRobustness:
    feature = [effect.feature_drift for effect in effects]
    refusal = [effect.refusal_drift for effect in effects]
    return ModuleRobustness(
        module=module.name,
        layer=module.layer,
        type=module.type,
        parameters=module.parameters,
        feature_drift=float(np.mean(feature)),
        refusal_drift=float(np.mean(refusal)),
        task_gain=float(np.mean([effect.task_gain for effect in effects])),
        feature_drift_spread=float(np.std(feature)),
        refusal_drift_spread=float(np.std(refusal)),
    )


def _drift(effect: _Effect, analysis: AnalysisSpec) -> float:
    return effect.refusal_drift if analysis.proxy == "refusal_drift" else effect.feature_drift


def _result(
    analysis: AnalysisSpec,
    probe: Probe,
    *,
    found_map: tuple[ModuleRobustness, ...],
    everything: _Effect,
    ordered: tuple[str, ...],
    found: Found,
) -> RobustnessResult:
    return RobustnessResult(
        analysis=analysis,
        classifier=probe.direction.quality,
        usable=True,
        modules=found_map,
        joint_feature_drift=everything.feature_drift,
        joint_refusal_drift=everything.refusal_drift,
        joint_task_gain=everything.task_gain,
        order=ordered,
        robust=found.robust,
        trace=found.trace,
    )


def _without_ground(analysis: AnalysisSpec, modules: Sequence[Module], probe: Probe) -> RobustnessResult:
    quality = probe.direction.quality
    if analysis.on_no_signal == "fail":
        raise InvalidModel(
            f"The base model does not tell harmful from benign prompts: its security feature has an AUROC of "
            f"{quality.auroc:.2f} on held-out prompts, and {analysis.min_auroc:g} is asked for. A robustness map would "
            "mean nothing. Use an aligned base model, or set `on_no_signal` to `uniform`.",
            code="no_security_feature",
            param="strategy.analysis.min_auroc",
        )
    names = tuple(module.name for module in modules)
    return RobustnessResult(
        analysis=analysis,
        classifier=quality,
        usable=False,
        modules=(),
        joint_feature_drift=0.0,
        joint_refusal_drift=0.0,
        joint_task_gain=0.0,
        order=(),
        robust=names,
        trace=(),
    )
