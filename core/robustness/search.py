"""Searches the robust set: as many units as possible whose joint drift stays inside a budget.

Pure: a function returns the joint drift of a set. Units are ordered by their own drift or, if there are few, by their
effect on a growing set. Bisection finds the longest prefix of that order inside the budget; then the units just beyond
the prefix are tried one by one.
Source: arXiv 2410.04524 names the search. The order, the stopping rule and the local pass are this project's choice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.robustness.probe_activations import Effect
from core.robustness.units import Unit
from core.schemas.analysis import AnalysisSpec
from core.schemas.robustness import SearchPhase, SearchStep

JointDrift = Callable[[Sequence[Unit]], float]
"""Returns the drift of a set of units that are all perturbed at once."""
_LOCAL_TRIES = 8
_MIN_GAIN = 1e-6


@dataclass(frozen=True)
class SearchResult:
    """The robust units, most robust first, and the steps of the search."""

    robust: tuple[Unit, ...]
    trace: tuple[SearchStep, ...]


def proxy_drift(effect: Effect, analysis: AnalysisSpec) -> float:
    """The drift of the proxy that the analysis uses."""
    return effect.refusal_drift if analysis.proxy == "refusal_drift" else effect.feature_drift


def order_units(effects: Sequence[tuple[Unit, Effect]], analysis: AnalysisSpec) -> tuple[Unit, ...]:
    """Sort units, most robust first.

    `drift`: by drift. `drift_per_task_gain`: units without drift first, largest task gain first; then by drift per nat
    of task gain; units without a task gain last.
    """

    def rank(pair: tuple[Unit, Effect]) -> tuple[float, float]:
        drift, gain = proxy_drift(pair[1], analysis), pair[1].task_gain
        if analysis.order == "drift":
            return (0.0, drift)
        if drift <= 0:
            return (0.0, -gain)
        if gain <= _MIN_GAIN:
            return (2.0, drift)
        return (1.0, drift / gain)

    return tuple(unit for unit, _ in sorted(effects, key=rank))


def order_by_growth(units: Sequence[Unit], joint: JointDrift) -> tuple[Unit, ...]:
    """Sort units by forward selection: the next unit is the one that makes the set drift least.

    Costs n (n + 1) / 2 - 1 joint measurements, so it is for few units. Drifts do not add up: the drift of a unit alone
    says little about its effect on a set.
    """
    chosen: list[Unit] = []
    left = list(units)
    while len(left) > 1:
        entering = min(left, key=lambda unit: joint([*chosen, unit]))
        chosen.append(entering)
        left.remove(entering)
    return (*chosen, *left)


def search_robust_set(ordered: Sequence[Unit], *, budget: float, joint: JointDrift) -> SearchResult:
    """The robust set, found with at most 1 + log2(n) + 8 joint measurements.

    `ordered` are the units, most robust first. `budget` is the maximum drift of the set, as a share of the joint drift
    of all units.
    """
    trace: list[SearchStep] = []
    everything = joint(ordered)
    limit = budget * everything

    def fits(units: Sequence[Unit], phase: SearchPhase, added: str | None = None) -> bool:
        drift = everything if phase == "all" else joint(units)
        trace.append(_step(phase, units, drift, limit, added=added))
        return drift <= limit

    if fits(ordered, "all"):  # all units together do not drift, or the budget is 1
        return SearchResult(tuple(ordered), tuple(trace))
    inside, outside = 0, len(ordered)
    while outside - inside > 1:
        middle = (inside + outside) // 2
        if fits(ordered[:middle], "binary_search"):
            inside = middle
        else:
            outside = middle
    robust = list(ordered[:inside])
    for unit in ordered[outside : outside + _LOCAL_TRIES]:  # the bisection has already rejected ordered[inside]
        if fits([*robust, unit], "local_pass", unit.name):
            robust.append(unit)
    return SearchResult(tuple(robust), tuple(trace))


def select_by_parameter_share(ordered: Sequence[Unit], *, share: float, joint: JointDrift) -> SearchResult:
    """Units in order, as long as they fit into this share of all parameters. Units that do not fit are skipped."""
    room = share * sum(unit.parameters for unit in ordered)
    robust: list[Unit] = []
    for unit in ordered:
        if unit.parameters <= room:
            robust.append(unit)
            room -= unit.parameters
    everything = joint(ordered)
    return SearchResult(
        tuple(robust),
        (
            _step("all", ordered, everything, everything),
            _step("parameter_share", robust, joint(robust), everything),
        ),
    )


def _step(
    phase: SearchPhase, units: Sequence[Unit], drift: float, limit: float, *, added: str | None = None
) -> SearchStep:
    size = sum(len(unit.members) for unit in units)
    return SearchStep(phase=phase, size=size, added=added, drift=drift, limit=limit, accepted=drift <= limit)
