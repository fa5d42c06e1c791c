"""Proxy-guided search for the robust subset: as many units as move the proxy, together, within a budget.

Pure: the joint drift of a set is asked of a function. Units are ordered, by their own drift or, where they are few, by
how they add to a growing set; the longest run of that order inside the budget is found by bisection; then units just
beyond the border are tried one by one.
Source: arXiv 2410.04524 names the search; order, stop rule and local pass are this project's choice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.robustness.readings import Effect
from core.robustness.units import Unit
from core.schemas.analysis import AnalysisSpec
from core.schemas.robustness import SearchPhase, SearchStep

JointDrift = Callable[[Sequence[Unit]], float]
_LOCAL_TRIES = 8
_LEAST_GAIN = 1e-6


@dataclass(frozen=True)
class Found:
    """The robust units, in their order of robustness, and how they were found."""

    robust: tuple[Unit, ...]
    trace: tuple[SearchStep, ...]


def drift_of(effect: Effect, analysis: AnalysisSpec) -> float:
    """The drift that the analysis goes by."""
    return effect.refusal_drift if analysis.proxy == "refusal_drift" else effect.feature_drift


def order(effects: Sequence[tuple[Unit, Effect]], analysis: AnalysisSpec) -> tuple[Unit, ...]:
    """Units, most robust first.

    `drift`: by drift. `drift_per_task_gain`: units that cost no security first, by what they give; then by drift per
    nat of task gain, and those that give nothing last.
    """

    def rank(pair: tuple[Unit, Effect]) -> tuple[float, float]:
        drift, gain = drift_of(pair[1], analysis), pair[1].task_gain
        if analysis.order == "drift":
            return (0.0, drift)
        if drift <= 0:
            return (0.0, -gain)
        if gain <= _LEAST_GAIN:
            return (2.0, drift)
        return (1.0, drift / gain)

    return tuple(unit for unit, _ in sorted(effects, key=rank))


def grown(units: Sequence[Unit], joint: JointDrift) -> tuple[Unit, ...]:
    """Units in the order in which they enter a growing set: next is the one with which the set drifts least.

    Forward selection, with n (n + 1) / 2 - 1 joint evaluations: for few units. Drifts do not add up, so what a unit
    does alone says little about what it does to a set.
    """
    chosen: list[Unit] = []
    left = list(units)
    while len(left) > 1:
        entering = min(left, key=lambda unit: joint([*chosen, unit]))
        chosen.append(entering)
        left.remove(entering)
    return (*chosen, *left)


def search(ordered: Sequence[Unit], *, budget: float, joint: JointDrift) -> Found:
    """The robust subset, with at most 1 + log2(n) + 8 joint evaluations.

    Args:
        ordered: units, most robust first.
        budget: share of the joint drift of all units that the subset may have.
        joint: drift of a set of units, all moved at once.
    """
    trace: list[SearchStep] = []
    everything = joint(ordered)
    limit = budget * everything

    def fits(units: Sequence[Unit], phase: SearchPhase, added: str | None = None) -> bool:
        drift = everything if phase == "all" else joint(units)
        trace.append(_step(phase, units, drift, limit, added=added))
        return drift <= limit

    if fits(ordered, "all"):  # moving everything does no harm at all, or the budget is the whole of it
        return Found(tuple(ordered), tuple(trace))
    inside, outside = 0, len(ordered)
    while outside - inside > 1:
        middle = (inside + outside) // 2
        if fits(ordered[:middle], "binary_search"):
            inside = middle
        else:
            outside = middle
    robust = list(ordered[:inside])
    for unit in ordered[outside : outside + _LOCAL_TRIES]:  # the one between them is known not to fit
        if fits([*robust, unit], "local_pass", unit.name):
            robust.append(unit)
    return Found(tuple(robust), tuple(trace))


def by_parameter_share(ordered: Sequence[Unit], *, share: float, joint: JointDrift) -> Found:
    """The first units of the order that hold at most this share of all parameters, and those behind that still fit."""
    room = share * sum(unit.parameters for unit in ordered)
    robust: list[Unit] = []
    for unit in ordered:
        if unit.parameters <= room:
            robust.append(unit)
            room -= unit.parameters
    everything = joint(ordered)
    return Found(
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
