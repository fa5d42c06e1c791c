"""A map from one model used on another: of another world, another size, another architecture.

The set that an analysis chose in the source is written down as shares by type and depth band, and put on the target by
those; it is compared with the target's own set and with uniform. Not here: the comparison itself.
"""

from collections.abc import Sequence
from typing import Literal

from core.lm.modules import Module
from core.robustness.units import units
from core.schemas.base import Frozen
from core.schemas.robustness import RobustnessResult
from core.schemas.strategy import MlLrStrategy, ModulesStrategy
from core.schemas.training import LearningPlan
from core.training.strategies import plan
from research.experiments.compare import compared_with_uniform
from research.experiments.evidence import map_of_another_world
from research.experiments.pool import Say, pool
from research.experiments.runs import uniform
from research.experiments.spec import Comparison, Curve, Run, Settings
from research.experiments.worlds import world_folder
from testbed.build import Shape

TARGETS: tuple[Shape, ...] = ("llama", "llama_small", "gpt_neox")
"""Shapes that the map is used on, all in the given world; the source is world 0's `llama`."""


class TransferResult(Frozen):
    """The result of `transfer`."""

    experiment: Literal["transfer"] = "transfer"
    source_world: int
    """World of the model whose map is used."""
    world_seed: int
    """World of the models that it is used on."""
    seeds: tuple[int, ...]
    """Seeds of the runs."""
    settings: Settings
    """All settings."""
    rate: float
    """The middle rate of the sweep, for every run."""
    source_robust: tuple[str, ...]
    """The source's set."""
    targets: dict[str, dict[str, Comparison]]
    """By shape: `own` (the target's own set) and `transferred`, each against uniform on the target."""
    agreement: dict[str, float]
    """By shape: share of the modules on which its own set (of the first seed) and the transferred one agree."""
    curves: dict[str, tuple[Curve, ...]]
    """Every run, by shape."""


def transfer(settings: Settings, world_seed: int, seeds: Sequence[int], say: Say) -> TransferResult:
    """Run it."""
    rate = settings.middle_rate
    source_world, source_modules, source = map_of_another_world(settings, world_seed, seeds[0])
    targets: dict[str, dict[str, Comparison]] = {}
    agreement: dict[str, float] = {}
    curves: dict[str, tuple[Curve, ...]] = {}
    for shape in TARGETS:
        say(f"target: {shape}")
        with pool(world_folder(world_seed, shape), world_seed, settings, say) as labs:
            modules = labs.modules()
            moved = transferred(source, source_modules, modules, settings.analysis.bands)
            own = labs.analyses([(settings.analysis, seed, rate, 0.0) for seed in seeds])
            runs = labs.curves(
                [
                    Run(run=run, seed=seed, rate=rate, plan=each)
                    for seed, found in zip(seeds, own, strict=True)
                    for run, each in _plans(settings, modules, found.result, moved).items()
                ]
            )
        targets[shape] = compared_with_uniform(runs, len(seeds))
        same = [(module.name in own[0].result.robust) == (module.name in moved) for module in modules]
        agreement[shape] = sum(same) / len(same)
        curves[shape] = tuple(runs)
    return TransferResult(
        source_world=source_world,
        world_seed=world_seed,
        seeds=tuple(seeds),
        settings=settings,
        rate=rate,
        source_robust=source.robust,
        targets=targets,
        agreement=agreement,
        curves=curves,
    )


def transferred(source: RobustnessResult, of: Sequence[Module], to: Sequence[Module], bands: int) -> tuple[str, ...]:
    """The modules of another model that have the type and the depth band of the source's robust ones.

    A type in a band is robust where most of its modules are. Types that the source does not have are not robust.
    """
    robust = frozenset(source.robust)
    places = {unit.name: index for index, unit in enumerate(units(of, "band", bands))}
    targets = {unit.name: index for index, unit in enumerate(units(to, "band", bands))}
    chosen = {
        (unit.members[0].type, places[_band(unit.name)])
        for unit in units(of, "type_band", bands)
        if 2 * len(unit.names & robust) > len(unit.members)
    }
    return tuple(
        module.name
        for unit in units(to, "type_band", bands)
        if (unit.members[0].type, targets[_band(unit.name)]) in chosen
        for module in unit.members
    )


def _band(name: str) -> str:
    return name.partition(", ")[2]


def _plans(
    settings: Settings, modules: Sequence[Module], own: RobustnessResult, moved: Sequence[str]
) -> dict[str, LearningPlan]:
    plans = {"uniform": uniform(modules)}
    if own.robust:
        plans["own"] = plan(MlLrStrategy(ratio=settings.ratio, analysis=own.analysis), modules, own)
    if moved:
        strategy = ModulesStrategy(label="transferred", full_rate=tuple(moved), ratio=settings.ratio)
        plans["transferred"] = plan(strategy, modules, None)
    return plans
