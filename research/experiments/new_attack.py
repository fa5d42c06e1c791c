"""Attacks that no tuning, no alignment and no analysis saw: does protection hold there too?

Covers: four families of the product's that the testbed was not aligned against (role play, distractor, several turns,
a prefilled answer), put to the base and to every strategy's model at the end of tuning, with safety_mix too. An attack
that breaks the base already says nothing about tuning. Not here: their words (core.attacks).
"""

from collections.abc import Sequence
from typing import Literal

from core.pipeline.cache import software
from research.experiments.compare import interval
from research.experiments.pool import Say, pool
from research.experiments.runs import orders, strategies, uniform
from research.experiments.spec import ExperimentResult, Interval, NewAttackRun, Run, Settings
from research.experiments.worlds import world_folder


class NewAttackResult(ExperimentResult):
    """What `new_attack` leaves."""

    experiment: Literal["new_attack"] = "new_attack"
    """Its name."""
    rate: float
    """The middle rate of the sweep, for every arm."""
    base: dict[str, float]
    """Attack success on the base model, by family, in per cent."""
    attack_success: dict[str, dict[str, Interval]]
    """By arm and family, in per cent, at the end of tuning."""
    reduction: dict[str, dict[str, Interval]]
    """Uniform's less the arm's, by family; positive is safer than uniform."""


def new_attack(settings: Settings, world_seed: int, seeds: Sequence[int], say: Say) -> NewAttackResult:
    """Run it."""
    folder = world_folder(world_seed)
    rate = settings.middle_rate
    with pool(folder, world_seed, settings, say) as labs:
        modules = labs.modules()
        base = labs.base_under_new_attacks()
        say("base model: " + ", ".join(f"{family} {value:.0f} %" for family, value in base.items()))
        analyses = labs.analyses([(settings.analysis, seed, rate, 0.0) for seed in seeds])
        wanted: list[Run] = []
        for seed, found in zip(seeds, analyses, strict=True):
            plans = {"uniform": uniform(modules)} | strategies(settings, modules, found.result)
            wanted += orders(settings, modules, plans, rate=rate, seed=seed)
        runs = labs.new_attacks(wanted)
    by_run: dict[str, list[NewAttackRun]] = {}
    for run in runs:
        by_run.setdefault(run.run, []).append(run)
    return NewAttackResult(
        world_seed=world_seed,
        seeds=tuple(seeds),
        settings=settings,
        software=software(),
        rate=rate,
        base=base,
        attack_success={
            run: {family: interval([run.attack_success[family] for run in each]) for family in base}
            for run, each in by_run.items()
        },
        reduction={
            run: {
                family: interval(
                    [
                        one.attack_success[family] - other.attack_success[family]
                        for one, other in zip(by_run["uniform"], each, strict=True)
                    ]
                )
                for family in base
            }
            for run, each in by_run.items()
            if run != "uniform"
        },
    )
