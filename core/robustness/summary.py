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
from core.schemas.robustness import (
    Classifier,
    GroupRobustness,
    MapStability,
    ModuleRobustness,
    RobustCount,
    RobustnessResult,
)

Maps = Sequence[Mapping[Unit, Effect]]
"""The effect of every unit, for each seed."""


def mean_effect(maps: Maps, unit: Unit) -> Effect:
    """The mean over seeds of the effect of a unit."""
    return sum((each[unit] for each in maps), NO_EFFECT) * (1 / len(maps))


def build_result(
    analysis: AnalysisSpec,
    quality: Classifier,
    maps: Maps,
    *,
    everything: Effect,
    ordered: Sequence[Unit],
    found: SearchResult,
    stability: Sequence[MapStability] = (),
    probe_steps: Sequence[int],
    update_scale: float,
) -> RobustnessResult:
    """The result of an analysis of a model that has a security feature.

    `everything` is the effect of perturbing all modules. `ordered` are the units that the search considered, most
    robust first, and `update_scale` is the factor on the update that it moved. `probe_steps` are those of each seed.
    """
    robust = module_names(found.robust)
    return RobustnessResult(
        analysis=analysis,
        classifier=quality,
        usable=True,
        modules=tuple(
            ModuleRobustness(
                module=unit.name,
                layer=unit.members[0].layer,
                type=unit.members[0].type,
                parameters=unit.parameters,
                **_figures(maps, unit),
            )
            for unit in maps[0]
            if unit.kind == "module"
        ),
        groups=tuple(
            GroupRobustness(
                kind=unit.kind,
                name=unit.name,
                modules=len(unit.members),
                parameters=unit.parameters,
                **_figures(maps, unit),
            )
            for unit in maps[0]
            if unit.kind != "module"
        ),
        joint_feature_drift=everything.feature_drift,
        joint_refusal_drift=everything.refusal_drift,
        joint_task_gain=everything.task_gain,
        stability=tuple(stability),
        probe_steps=tuple(probe_steps),
        update_scale=update_scale,
        order=tuple(unit.name for unit in ordered),
        robust=tuple(module.name for unit in found.robust for module in unit.members),
        chosen=tuple(
            RobustCount(kind=unit.kind, name=unit.name, robust=len(unit.names & robust), modules=len(unit.members))
            for unit in maps[0]
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


def _figures(maps: Maps, unit: Unit) -> dict[str, float]:
    mean = mean_effect(maps, unit)
    return {
        "feature_drift": mean.feature_drift,
        "refusal_drift": mean.refusal_drift,
        "task_gain": mean.task_gain,
        "feature_drift_spread": float(np.std([each[unit].feature_drift for each in maps])),
        "refusal_drift_spread": float(np.std([each[unit].refusal_drift for each in maps])),
    }
