"""One change of ML-LR at a time: what do ratio, budget, proxy, perturbation, unit, probe and warm-up matter?

Each variant is analysed and trained anew, and compared with uniform as everywhere. Not here: the comparison itself.
"""

from collections.abc import Sequence
from typing import Literal

from core.pipeline.cache import software
from core.schemas.analysis import AnalysisSpec, GradientPerturbation, NoisePerturbation, SwapPerturbation
from core.schemas.strategy import MlLrStrategy, Strategy, SwatStrategy
from core.training.strategies import plan
from research.experiments.evidence import compared_with_uniform
from research.experiments.pool import Say, pool
from research.experiments.runs import uniform
from research.experiments.spec import Comparison, Curve, ExperimentResult, Run, Settings
from research.experiments.worlds import world_folder

_PLAIN = AnalysisSpec()
ANALYSES: dict[str, AnalysisSpec] = {
    "default": _PLAIN,
    "budget_0.1": _PLAIN.model_copy(update={"budget": 0.1}),
    "budget_0.7": _PLAIN.model_copy(update={"budget": 0.7}),
    "proxy_feature_drift": _PLAIN.model_copy(update={"proxy": "feature_drift"}),
    "perturbation_swap": _PLAIN.model_copy(update={"perturbation": SwapPerturbation()}),
    "perturbation_noise": _PLAIN.model_copy(update={"perturbation": NoisePerturbation()}),
    "unit_module": _PLAIN.model_copy(update={"unit": "module"}),
    "unit_type": _PLAIN.model_copy(update={"unit": "type"}),
    "order_drift": _PLAIN.model_copy(update={"order": "drift"}),
    "probe_20_steps": _PLAIN.model_copy(update={"perturbation": GradientPerturbation(steps=20)}),
    "stretch_2.5": _PLAIN.model_copy(update={"perturbation": GradientPerturbation(update_scale=2.5)}),
    "probes_16": _PLAIN.model_copy(update={"probes": 16}),
}
"""Analyses that differ from the default in one thing."""
RATIOS = (0.0, 0.2, 0.4)
"""Ratios beside the default's."""
WARM_UPS = (0.1, 0.3, 0.5)
"""Shares of the steps in which SWAT trains the robust modules alone."""


class AblationResult(ExperimentResult):
    """What `ablation` leaves."""

    experiment: Literal["ablation"] = "ablation"
    """Its name."""
    rate: float
    """The middle rate of the sweep, for every arm."""
    robust: dict[str, tuple[int, ...]]
    """Robust modules that each analysis found, one number a seed."""
    variants: dict[str, Comparison]
    """Each variant against uniform."""
    curves: tuple[Curve, ...]
    """Every run."""


def ablation(settings: Settings, world_seed: int, seeds: Sequence[int], say: Say) -> AblationResult:
    """Run it."""
    folder = world_folder(world_seed)
    rate = settings.middle_rate
    asked = [(name, seed) for name in ANALYSES for seed in seeds]
    with pool(folder, world_seed, settings, say) as labs:
        modules = labs.modules()
        found = dict(
            zip(asked, labs.analyses([(ANALYSES[name], seed, rate, 0.0) for name, seed in asked]), strict=True)
        )
        orders = [Run(run="uniform", seed=seed, rate=rate, plan=uniform(modules)) for seed in seeds]
        for seed in seeds:
            variants: dict[str, tuple[Strategy, str]] = {
                name: (MlLrStrategy(ratio=settings.ratio, analysis=analysis), name)
                for name, analysis in ANALYSES.items()
            }
            variants |= {f"ratio_{ratio:g}": (MlLrStrategy(ratio=ratio), "default") for ratio in RATIOS}
            variants |= {f"swat_warmup_{share:g}": (SwatStrategy(warmup_ratio=share), "default") for share in WARM_UPS}
            orders += [
                Run(run=run, seed=seed, rate=rate, plan=plan(strategy, modules, found[name, seed].result))
                for run, (strategy, name) in variants.items()
                if found[name, seed].result.robust
            ]
        curves = labs.curves(orders)
    return AblationResult(
        world_seed=world_seed,
        seeds=tuple(seeds),
        settings=settings,
        software=software(),
        rate=rate,
        robust={name: tuple(len(found[name, seed].result.robust) for seed in seeds) for name in ANALYSES},
        variants=compared_with_uniform(curves, len(seeds)),
        curves=tuple(curves),
    )
