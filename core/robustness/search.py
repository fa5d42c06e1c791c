"""Proxy-guided search for the robust subset: as many modules as move the proxy, together, within a budget.

Pure: the joint drift of a set is asked of a function. Modules are ordered by their own drift; the longest run of that
order inside the budget is found by bisection; then modules just beyond the border are tried one by one.
Source: arXiv 2410.04524 names the search; order, stop rule and local pass are this project's choice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.spec.analysis import AnalysisSpec
from core.spec.results import ModuleRobustness, SearchPhase, SearchStep

JointDrift = Callable[[Sequence[str]], float]
_LOCAL_TRIES = 8
_LEAST_GAIN = 1e-6


@dataclass(frozen=True)
class Found:
    """The robust modules, in their order of robustness, and how they were found."""

    robust: tuple[str, ...]
    trace: tuple[SearchStep, ...]


def order(modules: Sequence[ModuleRobustness], analysis: AnalysisSpec) -> tuple[str, ...]:
    """Names of the modules, most robust first.

    `drift`: by drift. `drift_per_task_gain`: modules that cost no security first, by what they give; then by drift per
    nat of task gain, and those that give nothing last.
    """

    def rank(module: ModuleRobustness) -> tuple[float, float]:
        drift = module.refusal_drift if analysis.proxy == "refusal_drift" else module.feature_drift
        if analysis.order == "drift":
            return (0.0, drift)
        if drift <= 0:
            return (0.0, -module.task_gain)
        if module.task_gain <= _LEAST_GAIN:
            return (2.0, drift)
        return (1.0, drift / module.task_gain)

    return tuple(module.module for module in sorted(modules, key=rank))


def search(ordered: Sequence[str], *, budget: float, joint: JointDrift) -> Found:
    """The robust subset, with at most 1 + log2(n) + 8 joint evaluations.

    Args:
        ordered: module names, most robust first.
        budget: share of the joint drift of all modules that the subset may have.
        joint: drift of a set of modules, all moved at once.
    """
    trace: list[SearchStep] = []
    everything = joint(ordered)
    limit = budget * everything

    def fits(names: Sequence[str], phase: SearchPhase, added: str | None = None) -> bool:
        drift = joint(names)
        trace.append(
            SearchStep(phase=phase, size=len(names), added=added, drift=drift, limit=limit, accepted=drift <= limit)
        )
        return drift <= limit

    trace.append(
        SearchStep(
            phase="all", size=len(ordered), added=None, drift=everything, limit=limit, accepted=everything <= limit
        )
    )
    if everything <= limit:  # moving every module does no harm at all, or the budget is the whole of it
        return Found(tuple(ordered), tuple(trace))
    inside, outside = 0, len(ordered)
    while outside - inside > 1:
        middle = (inside + outside) // 2
        if fits(ordered[:middle], "binary_search"):
            inside = middle
        else:
            outside = middle
    robust = list(ordered[:inside])
    for name in ordered[outside : outside + _LOCAL_TRIES]:  # the one between them is known not to fit
        if fits([*robust, name], "local_pass", name):
            robust.append(name)
    return Found(tuple(robust), tuple(trace))
