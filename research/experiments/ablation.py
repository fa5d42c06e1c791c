"""One change of ML-LR at a time: what do ratio, budget, proxy, perturbation, unit, probe and warm-up matter?

Each variant is analysed and trained anew, and compared with uniform as everywhere. Not here: the comparison itself.
"""

from collections.abc import Sequence
from typing import Literal

from core.schemas.analysis import AnalysisSpec, GradientPerturbation, NoisePerturbation, SwapPerturbation
from core.schemas.strategy import MlLrStrategy, Strategy, SwatStrategy
from core.training.strategies import plan
from research.experiments.compare import compared_with_uniform
from research.experiments.pool import Say, pool
from research.experiments.runs import uniform
from research.experiments.spec import Comparison, Curve, ExperimentResult, Run, Settings
from research.experiments.worlds import world_folder

_CHANGES: dict[str, dict[str, object]] = {
    "default": {},
    "budget_0.1": {"budget": 0.1},
    "budget_0.7": {"budget": 0.7},
    "proxy_feature_drift": {"proxy": "feature_drift"},
    "perturbation_swap": {"perturbation": SwapPerturbation()},
    "perturbation_noise": {"perturbation": NoisePerturbation()},
    "unit_module": {"unit": "module"},
    "unit_type": {"unit": "type"},
    "order_drift": {"order": "drift"},
    "probe_20_steps": {"perturbation": GradientPerturbation(steps=20)},
    "stretch_2.5": {"perturbation": GradientPerturbation(update_scale=2.5)},
    "probes_16": {"probes": 16},
}
ANALYSES = {name: AnalysisSpec().model_copy(update=change) for name, change in _CHANGES.items()}
"""Analyses that differ from the default in one thing."""
RATIOS = (0.0, 0.2, 0.4)
"""Ratios beside the default's."""
WARM_UPS = (0.1, 0.3, 0.5)
"""Shares of the steps in which SWAT trains the robust modules alone."""


class AblationResult(ExperimentResult):
    """The result of `ablation`."""

    experiment: Literal["ablation"] = "ablation"
    rate: float
    """The middle rate of the sweep, for every run."""
    robust: dict[str, tuple[int, ...]]
    """Robust modules that each analysis found, one number a seed."""
    variants: dict[str, Comparison]
    """Each variant against uniform."""
    curves: tuple[Curve, ...]
    """Every run."""


def ablation(settings: Settings, world_seed: int, seeds: Sequence[int], say: Say) -> AblationResult:
    """Run it."""
    rate = settings.middle_rate
    variants: dict[str, tuple[Strategy, str]] = {
        name: (MlLrStrategy(ratio=settings.ratio, analysis=analysis), name) for name, analysis in ANALYSES.items()
    }
    variants |= {f"ratio_{ratio:g}": (MlLrStrategy(ratio=ratio), "default") for ratio in RATIOS}
    variants |= {f"swat_warmup_{share:g}": (SwatStrategy(warmup_ratio=share), "default") for share in WARM_UPS}
    wanted = [(name, seed) for name in ANALYSES for seed in seeds]
    with pool(world_folder(world_seed), world_seed, settings, say) as labs:
        modules = labs.modules()
        analyses = labs.analyses([(ANALYSES[name], seed, rate, 0.0) for name, seed in wanted])
        found = {each: analysis.result for each, analysis in zip(wanted, analyses, strict=True)}
        orders = [Run(run="uniform", seed=seed, rate=rate, plan=uniform(modules)) for seed in seeds]
        orders += [
            Run(run=run, seed=seed, rate=rate, plan=plan(strategy, modules, found[name, seed]))
            for seed in seeds
            for run, (strategy, name) in variants.items()
            if found[name, seed].robust
        ]
        curves = labs.curves(orders)
    return AblationResult(
        world_seed=world_seed,
        seeds=tuple(seeds),
        settings=settings,
        rate=rate,
        robust={name: tuple(len(found[name, seed].robust) for seed in seeds) for name in ANALYSES},
        variants=compared_with_uniform(curves, len(seeds)),
        curves=tuple(curves),
    )
