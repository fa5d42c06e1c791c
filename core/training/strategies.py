"""Strategies: from a robustness map, or none, to a factor on the learning rate for each module. Pure, no tensors.

Not here: how robustness is measured (core.robustness), how the rate moves in time (core.training.schedule), safeguards
(core.safeguards.arms).
"""

from collections.abc import Collection, Sequence
from typing import Protocol, assert_never

from core.errors import InvalidInput, TrainingFailed
from core.schemas.analysis import AnalysisSpec
from core.schemas.robustness import ModuleRobustness, RobustnessResult
from core.schemas.strategy import (
    FreezeLayersStrategy,
    LayerNumbers,
    LayerShares,
    MlLrContinuousStrategy,
    MlLrStrategy,
    ModulesStrategy,
    Strategy,
    SwatStrategy,
    UniformStrategy,
)
from core.schemas.training import LearningPlan

_SHOWN = 3


class Placed(Protocol):
    """A module as a plan sees it: what it is called, and which decoder layer it is in."""

    @property
    def name(self) -> str: ...

    @property
    def layer(self) -> int: ...


def plan(strategy: Strategy, modules: Sequence[Placed], result: RobustnessResult | None) -> LearningPlan:
    """The factor of each module.

    `uniform`: 1 everywhere. `ml_lr`: 1 for the robust modules, `ratio` for the others (arXiv 2410.04524).
    `ml_lr_continuous`: see `continuous`. `swat`: for a share of the steps 1 for the robust modules and `ratio` for the
    others, then 1 everywhere. `freeze_layers`: 0 in a range of layers, 1 elsewhere. `modules`: as `ml_lr`, for a set
    that is given by hand.

    `result` is the robustness map of the strategy's own analysis. Strategies without one need none, so that what is
    wrong with them can be told before anything is computed.

    Raises:
        InvalidInput: code `unknown_module` or `no_such_layers`; the strategy names what this model does not have.
        TrainingFailed: code `nothing_to_train`; every factor would be 0.
    """
    names = [module.name for module in modules]
    warmup: dict[str, float] | None = None
    share = 0.0
    match strategy:
        case UniformStrategy():
            scales = dict.fromkeys(names, 1.0)
        case MlLrStrategy(ratio=ratio):
            scales = _split(names, _found(result).robust, ratio)
        case MlLrContinuousStrategy(ratio=ratio):
            drifts = continuous(_found(result), ratio)
            scales = {name: drifts[name] if drifts else 1.0 for name in names}
        case SwatStrategy(ratio=ratio, warmup_ratio=share):
            scales, warmup = dict.fromkeys(names, 1.0), _split(names, _found(result).robust, ratio)
        case FreezeLayersStrategy(layers=layers):
            frozen = _frozen(layers, modules)
            scales = {module.name: 0.0 if module.layer in frozen else 1.0 for module in modules}
        case ModulesStrategy(full_rate=full_rate, ratio=ratio):
            _refuse_unknown(full_rate, names)
            scales = _split(names, full_rate, ratio)
        case _:
            assert_never(strategy)
    _refuse_nothing(strategy, scales if warmup is None else warmup)
    return LearningPlan(strategy=strategy.label, scales=scales, warmup_scales=warmup, warmup_ratio=share)


def continuous(result: RobustnessResult, ratio: float) -> dict[str, float]:
    """Factors that fall with drift, exponentially: `ratio` to the power of where a module lies in the map's spread.

    Drift is that of the analysis' proxy, and a negative one counts as none. The least drift of the map is the spread's
    0, with factor 1, and the greatest is its 1, with factor `ratio`; half-way between them the factor is the square
    root of `ratio`. So modules of equal drift get equal factors, and a map without a spread gives 1 everywhere. A map
    of no modules (the base model showed no security feature) gives none.
    """
    drifts = {module.module: max(0.0, _drift(module, result.analysis)) for module in result.modules}
    least, most = min(drifts.values(), default=0.0), max(drifts.values(), default=0.0)
    if most <= least:
        return dict.fromkeys(drifts, 1.0)
    return {name: ratio ** ((drift - least) / (most - least)) for name, drift in drifts.items()}


def _drift(module: ModuleRobustness, analysis: AnalysisSpec) -> float:
    return module.refusal_drift if analysis.proxy == "refusal_drift" else module.feature_drift


def _found(result: RobustnessResult | None) -> RobustnessResult:
    if result is None:
        raise TypeError("this strategy rests on a robustness map")
    return result


def _split(names: Sequence[str], full_rate: Collection[str], ratio: float) -> dict[str, float]:
    chosen = frozenset(full_rate)
    return {name: 1.0 if name in chosen else ratio for name in names}


def _frozen(layers: LayerNumbers | LayerShares, modules: Sequence[Placed]) -> frozenset[int]:
    """Numbers of the layers that are not trained. A layer's depth is that of its middle."""
    present = sorted({module.layer for module in modules})
    depth = present[-1] + 1
    match layers:
        case LayerNumbers(first=first, last=last):
            if last >= depth:
                raise InvalidInput(
                    f"freeze_layers names the layers {first} to {last}, and this model has {depth}, "
                    f"numbered 0 to {depth - 1}.",
                    code="no_such_layers",
                    param="strategy.layers",
                )
            chosen = frozenset(range(first, last + 1))
        case LayerShares(first=first, last=last):
            chosen = frozenset(layer for layer in range(depth) if first <= (layer + 0.5) / depth < last)
            if not chosen:
                raise InvalidInput(
                    f"No layer's middle lies between the shares {first:g} and {last:g} of this model's depth, which is "
                    f"{depth} layers: widen the range.",
                    code="no_such_layers",
                    param="strategy.layers",
                )
        case _:
            assert_never(layers)
    return chosen


def _refuse_unknown(named: Sequence[str], names: Sequence[str]) -> None:
    known = frozenset(names)
    unknown = [name for name in named if name not in known]
    if unknown:
        shown = ", ".join(repr(name) for name in unknown[:_SHOWN]) + (", ..." if len(unknown) > _SHOWN else "")
        raise InvalidInput(
            f"{len(unknown)} of the modules that get the full rate are none that this job trains: {shown}. "
            f"It trains {len(names)}, such as {names[0]!r}.",
            code="unknown_module",
            param="strategy.full_rate",
        )


def _refuse_nothing(strategy: Strategy, scales: dict[str, float]) -> None:
    if any(scale > 0 for scale in scales.values()):
        return
    match strategy:
        case FreezeLayersStrategy():
            why = "the range of frozen layers holds every module that would be trained: make it smaller"
        case ModulesStrategy():
            why = "no module is named and the ratio is 0: name some, or raise the ratio"
        case _:
            why = (
                "no module is robust and the ratio is 0: raise the ratio, or the budget of the analysis, so that more "
                "modules count as robust"
            )
    raise TrainingFailed(
        f"Strategy {strategy.label!r} would train nothing: {why}.", code="nothing_to_train", param="strategy"
    )
