"""How stable a map is: whether its modules rank alike with another seed, on other prompts and rows, and later on.

Pure. Not here: measuring the maps (core.robustness.analyse), warnings (core.robustness.map_warnings).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from core.robustness.gradient import Halves
from core.robustness.probe_activations import NO_EFFECT, Effect
from core.robustness.search import proxy_drift
from core.robustness.units import Unit
from core.schemas.analysis import AnalysisSpec
from core.schemas.robustness import Compared, MapStability, MeasuredAt

MIN_MODULES = 8
"""Rankings of fewer modules agree by chance too often to be worth reporting."""
_MIN_SPREAD = 1e-9

ByModule = Mapping[str, Effect]


@dataclass(frozen=True)
class SeedMap:
    """The map of one seed."""

    effects: Mapping[Unit, Effect]
    """The effect of every unit."""
    halves: Mapping[str, Halves] | None = None
    """The effect of every module from each half of the prompts and rows; None if that was not measured."""
    at_break: Mapping[str, Halves] | None = None
    """The same where the probe broke refusals, only the drift of the proxy; None if it did not, or ended there."""

    @property
    def modules(self) -> ByModule:
        """The effect of every module."""
        return {unit.name: effect for unit, effect in self.effects.items() if unit.kind == "module"}


def measure_stability(maps: Sequence[SeedMap], analysis: AnalysisSpec) -> tuple[MapStability, ...]:
    """The agreement of everything that can be compared, at the break first. Empty if nothing can be."""
    found: list[MapStability | None] = []
    ends = [each.modules for each in maps]
    breaks = [each.at_break for each in maps if each.at_break is not None]
    if len(breaks) == len(maps):
        at_break = [_join(each) for each in breaks]
        found.append(_compare_seeds(at_break, "break", analysis))
        found.append(_compare_halves(breaks, "break", analysis))
        found.append(_compare("break_and_end", "end", _mean(at_break), _mean(ends), analysis))
    found.append(_compare_seeds(ends, "end", analysis))
    halves = [each.halves for each in maps if each.halves is not None]
    if len(halves) == len(maps):
        found.append(_compare_halves(halves, "end", analysis))
    return tuple(each for each in found if each is not None)


def _compare_seeds(maps: Sequence[ByModule], at: MeasuredAt, analysis: AnalysisSpec) -> MapStability | None:
    """The mean map of the first half of the seeds against that of the others."""
    middle = len(maps) // 2
    return _compare("seeds", at, _mean(maps[:middle]), _mean(maps[middle:]), analysis) if middle else None


def _compare_halves(
    maps: Sequence[Mapping[str, Halves]], at: MeasuredAt, analysis: AnalysisSpec
) -> MapStability | None:
    one, other = (_mean([{name: halves[half] for name, halves in each.items()} for each in maps]) for half in (0, 1))
    return _compare("halves", at, one, other, analysis)


def _compare(
    between: Compared, at: MeasuredAt, one: ByModule, other: ByModule, analysis: AnalysisSpec
) -> MapStability | None:
    """The agreement of two maps of the same modules, or None if either does not rank them."""
    drifts = [np.array([proxy_drift(each[name], analysis) for name in one]) for each in (one, other)]
    gains = [np.array([each[name].task_gain for name in one]) for each in (one, other)]
    if len(one) < MIN_MODULES or not all(map(_has_spread, drifts)):
        return None
    ranks = spearmanr(*drifts, alternative="greater")
    top = len(one) // 2
    first, second = (set(np.argsort(each, kind="stable")[:top].tolist()) for each in drifts)
    return MapStability(
        between=between,
        at=at,
        modules=len(one),
        spearman=float(ranks.statistic),
        p_value=float(ranks.pvalue),
        overlap=len(first & second) / top,
        overlap_by_chance=top / len(one),
        task_gain_spearman=float(spearmanr(*gains).statistic) if all(map(_has_spread, gains)) else None,
    )


def _has_spread(values: NDArray[np.float64]) -> bool:
    return float(np.ptp(values)) > _MIN_SPREAD


def _join(halves: Mapping[str, Halves]) -> ByModule:
    return {name: first + second for name, (first, second) in halves.items()}


def _mean(maps: Sequence[ByModule]) -> ByModule:
    return {name: sum((each[name] for each in maps), NO_EFFECT) * (1 / len(maps)) for name in maps[0]}
