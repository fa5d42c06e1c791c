"""Puts what was measured into the result that is stored: the map with its spread over seeds, groups, what was chosen.

Pure. Not here: measuring (analyse), searching (search).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from core.lm.modules import Module
from core.robustness.readings import NO_EFFECT, Effect
from core.robustness.search import Found
from core.robustness.units import Unit, names_of
from core.schemas.analysis import AnalysisSpec
from core.schemas.robustness import Classifier, GroupRobustness, ModuleRobustness, RobustCount, RobustnessResult


class Measured:
    """Effects of each unit, one a seed."""

    def __init__(self, maps: Sequence[Mapping[Unit, Effect]]) -> None:
        self._maps = maps

    @property
    def units(self) -> tuple[Unit, ...]:
        """All that was measured."""
        return tuple(self._maps[0])

    def mean(self, unit: Unit) -> Effect:
        """Over seeds."""
        return sum((each[unit] for each in self._maps), NO_EFFECT) * (1 / len(self._maps))

    def spread(self, unit: Unit) -> tuple[float, float]:
        """Standard deviations over seeds of feature drift and refusal drift."""
        effects = [each[unit] for each in self._maps]
        return (
            float(np.std([each.feature_drift for each in effects])),
            float(np.std([each.refusal_drift for each in effects])),
        )


def result(
    analysis: AnalysisSpec,
    quality: Classifier,
    measured: Measured,
    *,
    everything: Effect,
    ordered: Sequence[Unit],
    found: Found,
    probe_steps: Sequence[int],
    update_scale: float,
) -> RobustnessResult:
    """The whole result of an analysis that had ground to stand on.

    Args:
        analysis: how it was measured.
        quality: the base's classifier.
        measured: effects of every module and of every group.
        everything: what moving all of them does.
        ordered: the units that the search went along, most robust first.
        found: what it found.
        probe_steps: steps of each seed's probe.
        stretch: how many times as large the update is that the search moved.
    """
    robust = names_of(found.robust)
    return RobustnessResult(
        analysis=analysis,
        classifier=quality,
        usable=True,
        modules=tuple(_module(measured, unit) for unit in measured.units if unit.kind == "module"),
        groups=tuple(_group(measured, unit) for unit in measured.units if unit.kind != "module"),
        joint_feature_drift=everything.feature_drift,
        joint_refusal_drift=everything.refusal_drift,
        joint_task_gain=everything.task_gain,
        probe_steps=tuple(probe_steps),
        update_scale=update_scale,
        order=tuple(unit.name for unit in ordered),
        robust=tuple(module.name for unit in found.robust for module in unit.members),
        chosen=tuple(
            RobustCount(kind=unit.kind, name=unit.name, robust=len(unit.names & robust), modules=len(unit.members))
            for unit in measured.units
            if unit.kind in ("circuit", "type", "band")
        ),
        trace=found.trace,
    )


def without_ground(analysis: AnalysisSpec, quality: Classifier, modules: Sequence[Module]) -> RobustnessResult:
    """The result where there is no security feature: no map, and every module gets the standard rate."""
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


def _module(measured: Measured, unit: Unit) -> ModuleRobustness:
    (module,) = unit.members
    mean, (feature_spread, refusal_spread) = measured.mean(unit), measured.spread(unit)
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


def _group(measured: Measured, unit: Unit) -> GroupRobustness:
    mean, (feature_spread, refusal_spread) = measured.mean(unit), measured.spread(unit)
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
