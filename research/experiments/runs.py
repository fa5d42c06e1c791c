"""The runs of an experiment: strategies as the product offers them, and the controls that a sceptic asks for.

random       a random set of modules with (nearly) as many parameters as the robust set, at the standard rate.
inverse      everything but the robust set at the standard rate.
uniform_low  every module at a smaller rate.
recipe       the set that the analysis of another world's model chose.
Beside them, three with the product's safety_mix: are rates by module needed where refusals are mixed in?
Pure but for the seed of the random set. Not here: training (research.experiments.lab).
"""

from collections.abc import Sequence
from random import Random

from core.lm.modules import Module
from core.schemas.robustness import RobustnessResult
from core.schemas.safeguards import SafetyMix
from core.schemas.strategy import (
    FreezeLayersStrategy,
    MlLrContinuousStrategy,
    MlLrStrategy,
    ModulesStrategy,
    Strategy,
    SwatStrategy,
    UniformStrategy,
)
from core.schemas.training import LearningPlan
from core.training.strategies import plan
from research.experiments.spec import Run, Settings

CONTROLS = ("random", "inverse", "uniform_low", "recipe")
MIXED = {run: f"{run} + safety_mix" for run in ("uniform", "ml_lr", "uniform_low")}
"""Arms that are trained once more with refusals among the rows, and what they are called then."""


def controls(
    settings: Settings, modules: Sequence[Module], found: RobustnessResult, recipe: Sequence[str], *, seed: int
) -> dict[str, LearningPlan]:
    """Plans of the controls that are sets of modules; a set that would hold nothing is left out."""
    robust = frozenset(found.robust)
    inverse = tuple(module.name for module in modules if module.name not in robust)
    sets = {"random": random_set(modules, robust, seed), "inverse": inverse, "recipe": tuple(recipe)}
    return {
        label: plan(ModulesStrategy(label=label, full_rate=names, ratio=settings.ratio), modules, None)
        for label, names in sets.items()
        if names
    }


def strategies(settings: Settings, modules: Sequence[Module], found: RobustnessResult) -> dict[str, LearningPlan]:
    """Plans of ML-LR and of every other strategy that the product offers."""
    analysis = found.analysis
    wanted: tuple[Strategy, ...] = (
        MlLrStrategy(ratio=settings.ratio, analysis=analysis),
        MlLrContinuousStrategy(ratio=settings.ratio, analysis=analysis),
        SwatStrategy(analysis=analysis),
        FreezeLayersStrategy(),
    )
    return {each.label: plan(each, modules, found) for each in wanted}


def uniform(modules: Sequence[Module]) -> LearningPlan:
    """Ordinary fine-tuning."""
    return plan(UniformStrategy(), modules, None)


def random_set(modules: Sequence[Module], like: frozenset[str], seed: int) -> tuple[str, ...]:
    """Modules drawn at random until they have as many parameters as those that are to be matched."""
    rng = Random(f"random set {seed}")  # noqa: S311 - reproducible, not secret
    room = sum(module.parameters for module in modules if module.name in like)
    drawn: list[str] = []
    for module in rng.sample(list(modules), len(modules)):
        if module.parameters <= room:
            drawn.append(module.name)
            room -= module.parameters
    return tuple(name.name for name in modules if name.name in drawn)


def orders(
    settings: Settings, modules: Sequence[Module], plans: dict[str, LearningPlan], *, rate: float, seed: int
) -> list[Run]:
    """One run for each plan, uniform at the smaller rate, and some of these once more with refusals among the rows."""
    runs = [Run(run=run, seed=seed, rate=rate, plan=each) for run, each in plans.items()]
    runs.append(Run(run="uniform_low", seed=seed, rate=rate * settings.low, plan=uniform(modules)))
    share = SafetyMix().share
    mixed = (run.model_copy(update={"run": MIXED[run.run], "safety_share": share}) for run in runs if run.run in MIXED)
    return [*runs, *mixed]
