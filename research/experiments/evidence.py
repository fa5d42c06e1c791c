"""ML-LR against uniform, the controls and the other strategies: the experiments `general` and `maths`.

First a small sweep chooses the learning rate as a user would, by validation loss of uniform runs. Each seed then has an
analysis of its own, and one run of every arm at that rate. Not here: the arms (research.experiments.arms), comparing
(research.experiments.compare).
"""

import time
from collections.abc import Sequence

from core.lm.modules import Module
from core.pipeline.cache import software
from core.schemas.robustness import RobustnessResult
from research.experiments.compare import compare
from research.experiments.lab import Lab
from research.experiments.pool import Pool, Say, pool
from research.experiments.runs import CONTROLS, MIXED, controls, orders, strategies, uniform
from research.experiments.spec import Analysed, Comparison, Curve, Point, Result, Run, Settings
from research.experiments.worlds import world_folder
from testbed.build import WORLD_SEED

GENERAL = Settings(tuning_set="instructions", rates=(2e-3, 4e-3, 8e-3, 16e-3))
MATHS = Settings(tuning_set="arithmetic", rates=(2e-3, 4e-3, 8e-3, 16e-3))
RECIPE_WORLDS = (WORLD_SEED, 10)
"""The control `recipe` takes its set from the first of these that is another world: the one that ships, mostly."""
_CHOICE_SEED = 1000
"""Seed of the sweep: none of the seeds that are compared."""


def evidence(
    name: str,
    settings: Settings,
    world_seed: int,
    seeds: Sequence[int],
    say: Say,
    *,
    recipe_world: int | None = None,
) -> Result:
    """Run the whole experiment. `recipe_world` is the world of the control `recipe`, if it is to be another one."""
    started = time.monotonic()
    if recipe_world is None:
        recipe_world = next(world for world in RECIPE_WORLDS if world != world_seed)
    recipe = _recipe(settings, recipe_world, say)
    folder = world_folder(world_seed)
    with pool(folder, world_seed, settings, say) as labs:
        modules = labs.modules()
        base = labs.base()
        say(f"base model: attack success {base.attack_success:.1f} %, over-refusal {base.over_refusal:.1f} %")
        sweep = _sweep(labs, settings, modules)
        chosen = min(sweep, key=lambda curve: curve.points[-1].loss)
        step_seconds = chosen.seconds / settings.steps
        analyses = labs.analyses([(settings.analysis, seed, chosen.rate, step_seconds) for seed in seeds])
        wanted = [
            order
            for seed, found in zip(seeds, analyses, strict=True)
            for order in _orders(settings, modules, found.result, recipe, rate=chosen.rate, seed=seed)
        ]
        curves = labs.curves(wanted)
    return _result(
        name,
        settings,
        world_seed,
        tuple(seeds),
        base=base,
        sweep=sweep,
        chosen=chosen,
        analyses=analyses,
        curves=curves,
        seconds=time.monotonic() - started,
    )


def _recipe(settings: Settings, world_seed: int, say: Say) -> tuple[str, ...]:
    """The set that another world's analysis chose, of the same data kind, at the middle rate of the sweep."""
    lab = Lab(world_folder(world_seed), world_seed, settings)
    rate = settings.middle_rate
    found = lab.analysed(settings.analysis, _CHOICE_SEED, rate, 0.0).result
    say(f"recipe: world {world_seed} has {len(found.robust)} robust modules")
    return found.robust


def _sweep(labs: Pool, settings: Settings, modules: Sequence[Module]) -> list[Curve]:
    """Uniform runs, one a rate."""
    return labs.curves(
        [Run(run="sweep", seed=_CHOICE_SEED, rate=rate, plan=uniform(modules)) for rate in settings.rates]
    )


def _orders(
    settings: Settings,
    modules: Sequence[Module],
    found: RobustnessResult,
    recipe: Sequence[str],
    *,
    rate: float,
    seed: int,
) -> list[Run]:
    plans = {"uniform": uniform(modules)} | strategies(settings, modules, found)
    plans |= controls(settings, modules, found, recipe, seed=seed)
    return orders(settings, modules, plans, rate=rate, seed=seed)


def _result(
    name: str,
    settings: Settings,
    world_seed: int,
    seeds: tuple[int, ...],
    *,
    base: Point,
    sweep: Sequence[Curve],
    chosen: Curve,
    analyses: Sequence[Analysed],
    curves: Sequence[Curve],
    seconds: float,
) -> Result:
    compared = compared_with_uniform(curves, len(seeds))
    ml_lr = compared["ml_lr"]
    return Result(
        experiment=name,
        world_seed=world_seed,
        seeds=seeds,
        settings=settings,
        software=software(),
        base=base,
        rate=chosen.rate,
        sweep={f"{curve.rate:g}": curve.points[-1].loss for curve in sweep},
        asr_reduction_at_equal_task=ml_lr.asr_reduction_at_equal_task,
        harmfulness_reduction_at_equal_task=ml_lr.harmfulness_reduction_at_equal_task,
        task_cost=ml_lr.task_cost,
        controls={run: each for run, each in compared.items() if run in CONTROLS},
        strategies={run: each for run, each in compared.items() if run not in (*CONTROLS, *MIXED.values())},
        safeguards={run: each for run, each in compared.items() if run in MIXED.values()},
        analyses=tuple(analyses),
        curves=(*sweep, *curves),
        seconds=seconds,
    )


def compared_with_uniform(curves: Sequence[Curve], seeds: int) -> dict[str, Comparison]:
    """Every arm that ran for every seed, against uniform."""
    by_run: dict[str, list[Curve]] = {}
    for curve in curves:
        by_run.setdefault(curve.run, []).append(curve)
    uniform_runs = by_run.pop("uniform")
    return {run: compare(run, uniform_runs, runs) for run, runs in by_run.items() if len(runs) == seeds}
