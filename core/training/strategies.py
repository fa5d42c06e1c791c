"""Strategies compute a factor on the learning rate of each module, from a robustness map or without one. Pure.

Not here: how robustness is measured (core.robustness), the learning rate schedule (core.training.schedule), safeguards
(core.safeguards).
"""

from collections.abc import Collection, Sequence
from typing import assert_never

from core.errors import InvalidInput, TrainingFailed
from core.lm.modules import Module
from core.schemas.robustness import RobustnessResult
from core.schemas.strategy import (
    FreezeLayersStrategy,
    LayerNumbers,
    LayerShares,
    MlLrContinuousStrategy,
    MlLrStrategy,
    ModulesStrategy,
    RepairStrategy,
    Strategy,
    SwatStrategy,
    UniformStrategy,
)
from core.schemas.training import LearningPlan

_SHOWN = 3


def plan(strategy: Strategy, modules: Sequence[Module], result: RobustnessResult | None) -> LearningPlan:
    """Compute the learning plan of a strategy: a factor for each module.

    `uniform` and `repair`: 1 everywhere. `ml_lr`: 1 for robust modules, `ratio` for the others (arXiv 2410.04524).
    `ml_lr_continuous`: see `continuous`. `swat`: as `ml_lr` in the first steps, then 1 everywhere. `freeze_layers`: 0
    in a range of layers, 1 elsewhere. `modules`: as `ml_lr`, with a set that the user names.

    `result` is the robustness map of the strategy's own analysis. Strategies without an analysis need none, so their
    errors show before anything is computed.

    Raises:
        InvalidInput: code `unknown_module` or `no_such_layers`; the strategy names modules or layers that this model
            does not have.
        TrainingFailed: code `nothing_to_train`; every factor is 0.
    """
    names = [module.name for module in modules]
    warmup: dict[str, float] | None = None
    share = 0.0
    match strategy:
        case UniformStrategy() | RepairStrategy():
            scales = dict.fromkeys(names, 1.0)
        case MlLrStrategy(ratio=ratio):
            scales = _split(names, _required(result).robust, ratio)
        case MlLrContinuousStrategy(ratio=ratio):
            drifts = continuous(_required(result), ratio)
            scales = {name: drifts[name] if drifts else 1.0 for name in names}
        case SwatStrategy(ratio=ratio, warmup_ratio=share):
            scales, warmup = dict.fromkeys(names, 1.0), _split(names, _required(result).robust, ratio)
        case FreezeLayersStrategy(layers=layers):
            frozen = _frozen_layers(layers, modules)
            scales = {module.name: 0.0 if module.layer in frozen else 1.0 for module in modules}
        case ModulesStrategy(full_rate=full_rate, ratio=ratio):
            _check_known(full_rate, names)
            scales = _split(names, full_rate, ratio)
        case _:
            assert_never(strategy)
    _check_trains(strategy, scales if warmup is None else warmup)
    return LearningPlan(strategy=strategy.label, scales=scales, warmup_scales=warmup, warmup_ratio=share)


def continuous(result: RobustnessResult, ratio: float) -> dict[str, float]:
    """Factors that fall exponentially with drift: `ratio` to the power of the module's relative drift.

    Drift is that of the analysis' proxy; a negative drift counts as 0. Relative drift is 0 for the smallest drift of
    the map and 1 for the largest, so their factors are 1 and `ratio`, and half-way between them the factor is the
    square root of `ratio`. Modules with equal drift get equal factors, and a map without a spread gives 1 everywhere.
    A map without modules (the base model has no security feature) gives an empty result.
    """
    by_refusals = result.analysis.proxy == "refusal_drift"
    drifts = {
        module.module: max(0.0, module.refusal_drift if by_refusals else module.feature_drift)
        for module in result.modules
    }
    least, most = min(drifts.values(), default=0.0), max(drifts.values(), default=0.0)
    if most <= least:
        return dict.fromkeys(drifts, 1.0)
    return {name: ratio ** ((drift - least) / (most - least)) for name, drift in drifts.items()}


def _required(result: RobustnessResult | None) -> RobustnessResult:
    if result is None:
        raise TypeError("this strategy needs a robustness map")
    return result


def _split(names: Sequence[str], full_rate: Collection[str], ratio: float) -> dict[str, float]:
    chosen = frozenset(full_rate)
    return {name: 1.0 if name in chosen else ratio for name in names}


def _frozen_layers(layers: LayerNumbers | LayerShares, modules: Sequence[Module]) -> frozenset[int]:
    """The numbers of the layers that are not trained. A layer's depth is the depth of its middle."""
    present = sorted({module.layer for module in modules})
    depth = present[-1] + 1
    match layers:
        case LayerNumbers(first=first, last=last):
            if last >= depth:
                raise InvalidInput(
                    f"freeze_layers names the layers {first} to {last}, but this model has {depth} layers. Use numbers "
                    f"from 0 to {depth - 1}.",
                    code="no_such_layers",
                    param="strategy.layers",
                )
            chosen = frozenset(range(first, last + 1))
        case LayerShares(first=first, last=last):
            chosen = frozenset(layer for layer in range(depth) if first <= (layer + 0.5) / depth < last)
            if not chosen:
                raise InvalidInput(
                    f"No layer has its middle between {first:g} and {last:g} of this model's depth of {depth} layers. "
                    "Widen the range.",
                    code="no_such_layers",
                    param="strategy.layers",
                )
        case _:
            assert_never(layers)
    return chosen


def _check_known(named: Sequence[str], names: Sequence[str]) -> None:
    known = frozenset(names)
    unknown = [name for name in named if name not in known]
    if unknown:
        shown = ", ".join(repr(name) for name in unknown[:_SHOWN]) + (", ..." if len(unknown) > _SHOWN else "")
        raise InvalidInput(
            f"This job does not train {len(unknown)} of the modules in full_rate: {shown}. Name some of the "
            f"{len(names)} modules that it trains, such as {names[0]!r}.",
            code="unknown_module",
            param="strategy.full_rate",
        )


def _check_trains(strategy: Strategy, scales: dict[str, float]) -> None:
    if any(scale > 0 for scale in scales.values()):
        return
    match strategy:
        case FreezeLayersStrategy():
            why = "the frozen layers contain every module that could be trained. Freeze fewer layers"
        case ModulesStrategy():
            why = "full_rate names no module and the ratio is 0. Name modules, or raise the ratio"
        case _:
            why = "no module is robust and the ratio is 0. Raise the ratio, or the budget of the analysis"
    raise TrainingFailed(
        f"Strategy {strategy.label!r} would train nothing: {why}.", code="nothing_to_train", param="strategy"
    )
