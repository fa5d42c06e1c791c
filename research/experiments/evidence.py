"""ML-LR against uniform, the controls and the other strategies: the experiments `general` and `maths`.

First a small sweep chooses the learning rate as a user would, by validation loss of uniform runs. Each seed then has an
analysis of its own, and one run of every kind at that rate. Not here: the runs (research.experiments.runs), comparing
(research.experiments.compare).
"""

import time
from collections.abc import Sequence

from core.lm.modules import Module
from core.schemas.robustness import RobustnessResult
from research.experiments.compare import compared_with_uniform
from research.experiments.lab import Lab
from research.experiments.pool import Pool, Say, pool
from research.experiments.runs import CONTROLS, MIXED, controls, orders, strategies, uniform
from research.experiments.spec import Analysed, Comparison, Curve, ExperimentResult, Interval, Point, Run, Settings
from research.experiments.tables import aligned, cell
from research.experiments.worlds import world_folder
from testbed.build import WORLD_SEED

GENERAL = Settings(tuning_set="instructions", rates=(2e-3, 4e-3, 8e-3, 16e-3))
MATHS = Settings(tuning_set="arithmetic", rates=(2e-3, 4e-3, 8e-3, 16e-3))
_CHOICE_SEED = 1000
"""Seed of the sweep: none of the seeds that are compared."""


class Result(ExperimentResult):
    """The result of `general` and `maths`."""

    base: Point
    """The base model before any tuning."""
    rate: float
    """Standard learning rate that the sweep chose."""
    sweep: dict[str, float]
    """Rate to final validation loss of a uniform run."""
    asr_reduction_at_equal_task: Interval
    """Of `ml_lr`."""
    harmfulness_reduction_at_equal_task: Interval
    """Of `ml_lr`."""
    task_cost: Interval
    """Of `ml_lr`."""
    controls: dict[str, Comparison]
    """`random`, `inverse`, `uniform_low`, `recipe`."""
    strategies: dict[str, Comparison]
    """`ml_lr` and the other strategies."""
    safeguards: dict[str, Comparison] = {}
    """`uniform`, `ml_lr` and `uniform_low` with refusals mixed into the rows, as `safety_mix` does."""
    analyses: tuple[Analysed, ...]
    """One a seed."""
    curves: tuple[Curve, ...]
    """Every run."""
    seconds: float
    """The whole experiment."""

    def table(self) -> str:
        """The comparisons as text: reductions against uniform, mean and 95 % interval."""
        rows = [["run", "ASR at equal task", "ASR at end", "ASR at worst", "harmfulness", "content", "task cost"]]
        for each in (*self.strategies.values(), *self.controls.values(), *self.safeguards.values()):
            success = each.asr_reduction_at_equal_task, each.asr_reduction_at_end, each.asr_reduction_at_worst
            harmfulness = cell(each.harmfulness_reduction_at_equal_task, digits=2)
            content = cell(each.content_reduction_at_equal_task)
            rows.append([each.run, *map(cell, success), harmfulness, content, cell(each.task_cost)])
        head = f"{self.experiment}, world {self.world_seed}, seeds {len(self.seeds)}, rate {self.rate:g}"
        return "\n".join([f"{head}; reductions against uniform", *aligned(rows)])


def evidence(name: str, settings: Settings, world_seed: int, seeds: Sequence[int], say: Say) -> Result:
    """Run the whole experiment. The control `recipe` is the set of another world's map."""
    started = time.monotonic()
    recipe_world, _, recipe = map_of_another_world(settings, world_seed, _CHOICE_SEED)
    say(f"recipe: world {recipe_world} has {len(recipe.robust)} robust modules")
    with pool(world_folder(world_seed), world_seed, settings, say) as labs:
        modules = labs.modules()
        base = labs.base()
        say(f"base model: attack success {base.attack_success:.1f} %, over-refusal {base.over_refusal:.1f} %")
        sweep, chosen = choose_rate(labs, settings, modules)
        step_seconds = chosen.seconds / settings.steps
        analyses = labs.analyses([(settings.analysis, seed, chosen.rate, step_seconds) for seed in seeds])
        runs: list[Run] = []
        for seed, found in zip(seeds, analyses, strict=True):
            plans = {"uniform": uniform(modules)} | strategies(settings, modules, found.result)
            plans |= controls(settings, modules, found.result, recipe.robust, seed=seed)
            runs += orders(settings, modules, plans, rate=chosen.rate, seed=seed)
        curves = labs.curves(runs)
    compared = compared_with_uniform(curves, len(seeds))
    ml_lr = compared["ml_lr"]
    return Result(
        experiment=name,
        world_seed=world_seed,
        seeds=tuple(seeds),
        settings=settings,
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
        seconds=time.monotonic() - started,
    )


def map_of_another_world(
    settings: Settings, world_seed: int, seed: int
) -> tuple[int, tuple[Module, ...], RobustnessResult]:
    """Another world, the one that ships if it can be; its modules, and their map at the middle rate of the sweep."""
    world = next(world for world in (WORLD_SEED, 10) if world != world_seed)
    lab = Lab(world_folder(world), world, settings)
    return world, lab.modules, lab.analysed(settings.analysis, seed, settings.middle_rate, 0.0).result


def choose_rate(labs: Pool, settings: Settings, modules: Sequence[Module]) -> tuple[list[Curve], Curve]:
    """Uniform runs, one a rate, and of these the one that ends with the least validation loss."""
    sweep = labs.curves(
        [Run(run="sweep", seed=_CHOICE_SEED, rate=rate, plan=uniform(modules)) for rate in settings.rates]
    )
    return sweep, min(sweep, key=lambda curve: curve.points[-1].loss)
