"""Builds the stored result of an analysis: means and spreads over seeds, groups, and the robust set by group.

Pure. Not here: measurements (analyse), the search (search).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from core.lm.modules import Module
from core.robustness.probe_activations import NO_EFFECT, Effect
from core.robustness.search import SearchResult
from core.robustness.units import Unit, module_names
from core.schemas.analysis import AnalysisSpec
from core.schemas.robustness import Classifier, GroupRobustness, ModuleRobustness, RobustCount, RobustnessResult


class UnitEffects:
    """The effects of each unit, one for each seed."""

    def __init__(self, maps: Sequence[Mapping[Unit, Effect]]) -> None:
        self._maps = maps

    @property
    def units(self) -> tuple[Unit, ...]:
        """All measured units."""
        return tuple(self._maps[0])

    def mean(self, unit: Unit) -> Effect:
        """The mean over seeds."""
        return sum((each[unit] for each in self._maps), NO_EFFECT) * (1 / len(self._maps))

    def spread(self, unit: Unit) -> tuple[float, float]:
        """Standard deviations over seeds of feature drift and refusal drift."""
        effects = [each[unit] for each in self._maps]
        return (
            float(np.std([each.feature_drift for each in effects])),
            float(np.std([each.refusal_drift for each in effects])),
        )


def build_result(
    analysis: AnalysisSpec,
    quality: Classifier,
    effects: UnitEffects,
    *,
    everything: Effect,
    ordered: Sequence[Unit],
    found: SearchResult,
    probe_steps: Sequence[int],
    update_scale: float,
) -> RobustnessResult:
    """The result of an analysis of a model that has a security feature.

    Args:
        analysis: options of the analysis.
        quality: quality of the base model's security classifier.
        effects: effects of every module and of every group.
        everything: effect of perturbing all modules.
        ordered: the units that the search considered, most robust first.
        found: result of the search.
        probe_steps: steps of the probe of each seed.
        update_scale: factor on the update that the search moved.
    """
    robust = module_names(found.robust)
    return RobustnessResult(
        analysis=analysis,
        classifier=quality,
        usable=True,
        modules=tuple(_module(effects, unit) for unit in effects.units if unit.kind == "module"),
        groups=tuple(_group(effects, unit) for unit in effects.units if unit.kind != "module"),
        joint_feature_drift=everything.feature_drift,
        joint_refusal_drift=everything.refusal_drift,
        joint_task_gain=everything.task_gain,
        probe_steps=tuple(probe_steps),
        update_scale=update_scale,
        order=tuple(unit.name for unit in ordered),
        robust=tuple(module.name for unit in found.robust for module in unit.members),
        chosen=tuple(
            RobustCount(kind=unit.kind, name=unit.name, robust=len(unit.names & robust), modules=len(unit.members))
            for unit in effects.units
            if unit.kind in ("circuit", "type", "band")
        ),
        trace=found.trace,
    )


def no_signal_result(analysis: AnalysisSpec, quality: Classifier, modules: Sequence[Module]) -> RobustnessResult:
    """The result for a model without a security feature: no map, and every module gets the standard rate."""
    return RobustnessResult(
        analysis=analysis,
        classifier=quality,
        usable=False,
        modules=(),
        joint_feature_drift=0.0,
        joint_refusal_drift=0.0,
        joint_task_gain=0.0,
        order=(),
        robust=tuple(module.name for module in modules),
        trace=(),
    )


def _module(effects: UnitEffects, unit: Unit) -> ModuleRobustness:
    (module,) = unit.members
    mean, (feature_spread, refusal_spread) = effects.mean(unit), effects.spread(unit)
    return ModuleRobustness(
        module=module.name,
        layer=module.layer,
        type=module.type,
        parameters=module.parameters,
        feature_drift=mean.feature_drift,
        refusal_drift=mean.refusal_drift,
        task_gain=mean.task_gain,
        feature_drift_spread=feature_spread,
        refusal_drift_spread=refusal_spread,
    )


def _group(effects: UnitEffects, unit: Unit) -> GroupRobustness:
    mean, (feature_spread, refusal_spread) = effects.mean(unit), effects.spread(unit)
    return GroupRobustness(
        kind=unit.kind,
        name=unit.name,
        modules=len(unit.members),
        parameters=unit.parameters,
        feature_drift=mean.feature_drift,
        refusal_drift=mean.refusal_drift,
        task_gain=mean.task_gain,
        feature_drift_spread=feature_spread,
        refusal_drift_spread=refusal_spread,
    )
