"""The arms of an experiment: strategies and safeguards as a job would order them, and the controls that must be beaten.

Not here: training them (research.real.lab).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from core.lm.modules import Module
from core.schemas.robustness import RobustnessResult
from core.schemas.safeguards import ConstrainedFirstTokens, Safeguards, SafetyMix
from core.schemas.strategy import (
    FreezeLayersStrategy,
    MlLrContinuousStrategy,
    MlLrStrategy,
    ModulesStrategy,
    Strategy,
    SwatStrategy,
    UniformStrategy,
)
from research.experiments.runs import random_set

ArmName = Literal[
    "uniform",
    "half_rate",
    "quarter_rate",
    "ml_lr",
    "ml_lr_continuous",
    "swat",
    "inverse",
    "random_1",
    "random_2",
    "random_3",
    "random_4",
    "random_5",
    "attention",
    "mlp",
    "freeze_layers",
    "safety_mix",
    "half_rate_safety_mix",
    "attention_safety_mix",
    "first_tokens",
]
_RATIO = 0.1
"""Factor on the learning rate of modules outside the set."""
_ATTENTION = frozenset({"q", "k", "v", "o"})
_SAFETY_MIX = Safeguards(SafetyMix())


@dataclass(frozen=True)
class Arm:
    """How one arm is trained."""

    strategy: Strategy
    rate_factor: float = 1.0
    """Factor on the rate that the arm of `rate_of` uses."""
    rate_of: ArmName | None = None
    """The arm whose rate is used; None for a sweep of its own."""


_PLAIN: dict[ArmName, Arm] = {
    "uniform": Arm(UniformStrategy()),
    "half_rate": Arm(UniformStrategy(label="half_rate"), 0.5, "uniform"),
    "quarter_rate": Arm(UniformStrategy(label="quarter_rate"), 0.25, "uniform"),
    "ml_lr": Arm(MlLrStrategy(ratio=_RATIO)),
    "ml_lr_continuous": Arm(MlLrContinuousStrategy(ratio=_RATIO)),
    "swat": Arm(SwatStrategy()),
    "freeze_layers": Arm(FreezeLayersStrategy()),
    "safety_mix": Arm(UniformStrategy(label="safety_mix", safeguards=_SAFETY_MIX)),
    "half_rate_safety_mix": Arm(
        UniformStrategy(label="half_rate_safety_mix", safeguards=_SAFETY_MIX), 0.5, "safety_mix"
    ),
    "first_tokens": Arm(UniformStrategy(label="first_tokens", safeguards=Safeguards(ConstrainedFirstTokens()))),
}
"""Arms that do not depend on the model's modules."""


Maps = Callable[[], RobustnessResult]
"""Computes the map, or reads it; only arms that need one call it."""


def build_arm(name: ArmName, modules: Sequence[Module], compute_map: Maps, *, seed: int) -> Arm:
    """The arm of this name on a model with these modules. `seed` decides random sets."""
    if name in _PLAIN:
        return _PLAIN[name]
    chosen = _choose_set(name, modules, compute_map, seed)
    safeguards = _SAFETY_MIX if name == "attention_safety_mix" else Safeguards()
    strategy = ModulesStrategy(label=name, full_rate=chosen, ratio=_RATIO, safeguards=safeguards)
    return Arm(strategy, rate_of="ml_lr" if name.startswith("random_") else None)


def needs_map(name: ArmName) -> bool:
    """Whether the arm depends on a robustness map."""
    return name in ("ml_lr", "ml_lr_continuous", "swat", "inverse") or name.startswith("random_")


def _choose_set(name: ArmName, modules: Sequence[Module], compute_map: Maps, seed: int) -> tuple[str, ...]:
    """The modules at the full rate."""
    match name:
        case "attention" | "attention_safety_mix":
            return tuple(module.name for module in modules if module.type in _ATTENTION)
        case "mlp":
            return tuple(module.name for module in modules if module.type not in _ATTENTION)
        case "inverse":
            robust = frozenset(compute_map().robust)
            return tuple(module.name for module in modules if module.name not in robust)
        case _:
            number = int(name.removeprefix("random_"))
            return random_set(modules, frozenset(compute_map().robust), 10 * seed + number)
