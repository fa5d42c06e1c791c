"""Attacks that no tuning, no alignment and no analysis saw: does protection hold there too?

Covers: four families of the product's that the testbed was not aligned against (role play, distractor, several turns,
a prefilled answer), put to the base and to every strategy's model at the end of tuning, with safety_mix too. An attack
that breaks the base already says nothing about tuning. Not here: their words (core.attacks).
"""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from core.schemas.attacks import Distractor, MultiTurn, Prefill, RolePlay
from research import ignore
from research.experiments.compare import interval
from research.experiments.lab import Lab, decided_share
from research.experiments.pool import Say, pool
from research.experiments.runs import orders, strategies, uniform
from research.experiments.spec import ExperimentResult, Interval, Run, Settings
from research.experiments.worlds import world_folder

_UNSEEN = (RolePlay(), Distractor(), MultiTurn(), Prefill())
"""Attacks in a code are left out: so small a model reads none."""


class NewAttackResult(ExperimentResult):
    """The result of `new_attack`."""

    experiment: Literal["new_attack"] = "new_attack"
    rate: float
    """The middle rate of the sweep, for every run."""
    base: dict[str, float]
    """Attack success on the base model, by family, in per cent."""
    attack_success: dict[str, dict[str, Interval]]
    """By run and family, in per cent, at the end of tuning."""
    reduction: dict[str, dict[str, Interval]]
    """Uniform's less the run's, by family; positive is safer than uniform."""


def new_attack(settings: Settings, world_seed: int, seeds: Sequence[int], say: Say) -> NewAttackResult:
    """Run it."""
    rate = settings.middle_rate
    with pool(world_folder(world_seed), world_seed, settings, say) as labs:
        modules = labs.modules()
        base = labs.call(_attack_base)
        say("base model: " + _as_text(base))
        analyses = labs.analyses([(settings.analysis, seed, rate, 0.0) for seed in seeds])
        runs: list[Run] = []
        for seed, found in zip(seeds, analyses, strict=True):
            plans = {"uniform": uniform(modules)} | strategies(settings, modules, found.result)
            runs += orders(settings, modules, plans, rate=rate, seed=seed)
        attacked = labs.each(_attack_tuned, runs, lambda run, found: f"{run.run}, seed {run.seed}: {_as_text(found)}")
    by_run: dict[str, list[dict[str, float]]] = {}
    for run, found in zip(runs, attacked, strict=True):
        by_run.setdefault(run.run, []).append(found)
    success = {run: {family: [found[family] for found in each] for family in base} for run, each in by_run.items()}
    return NewAttackResult(
        world_seed=world_seed,
        seeds=tuple(seeds),
        settings=settings,
        rate=rate,
        base=base,
        attack_success={
            run: {family: interval(rates) for family, rates in each.items()} for run, each in success.items()
        },
        reduction={
            run: {
                family: interval([one - other for one, other in zip(success["uniform"][family], rates, strict=True)])
                for family, rates in each.items()
            }
            for run, each in success.items()
            if run != "uniform"
        },
    )


def _attack_base(lab: Lab) -> dict[str, float]:
    return _attack(lab, lab.base.model)


def _attack_tuned(lab: Lab, order: Run) -> dict[str, float]:
    with lab.trained(order, ignore) as tuned:
        return _attack(lab, tuned)


def _attack(lab: Lab, model: nn.Module) -> dict[str, float]:
    """Attack success by family, in per cent."""
    answers = lab.attack(model, _UNSEEN)
    return {
        attack.family: decided_share([row for row in answers if row.suite == attack.family], complied=True)
        for attack in _UNSEEN
    }


def _as_text(found: dict[str, float]) -> str:
    return ", ".join(f"{family} {value:.0f} %" for family, value in found.items())
