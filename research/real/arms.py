"""The arms of an experiment: strategies and safeguards as a job would order them, and the controls that must be beaten.

Not here: training them (research.real.lab).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from core.lm.modules import Module
from core.schemas.robustness import RobustnessResult
from core.schemas.safeguards import (
    AnswerPreview,
    AverageWeights,
    ConstrainedFirstTokens,
    KeepSafeWeights,
    KlToBase,
    SafeguardOptions,
    Safeguards,
    SafetyMix,
    ScaleUpdate,
    SelfDistill,
)
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
    "kl_to_base",
    "attention_kl_to_base",
    "kl_to_base_safety_mix",
    "kl_to_base_2_rows",
    "kl_to_base_x3",
    "kl_to_base_x10",
    "kl_to_base_x3_safety_mix",
    "half_rate_kl_to_base",
    "kl_16_tokens",
    "kl_16_tokens_x3",
    "kl_16_tokens_x3_1_row",
    "kl_5_tokens_x3",
    "kl_16_tokens_x10",
    "kl_16_tokens_x10_4_rows",
    "kl_balanced",
    "kl_balanced_x5",
    "average_weights",
    "scale_update",
    "keep_safe_weights",
    "self_distill",
    "answer_preview",
]
_RATIO = 0.1
"""Factor on the learning rate of modules outside the set."""
_ATTENTION = frozenset({"q", "k", "v", "o"})
_DECAY = 0.9
"""Of the average: runs are short."""


@dataclass(frozen=True)
class Arm:
    """How one arm is trained."""

    strategy: Strategy
    rate_factor: float = 1.0
    """Factor on the rate that the arm of `rate_of` uses."""
    rate_of: ArmName | None = None
    """The arm whose rate is used; None for a sweep of its own."""


_REPLAY = KlToBase(weight=1, safety_rows=4, answer_tokens=1000, safe_share=None)
"""The KL penalty as it was measured first, on whole answers: `kl_to_base` in every plan."""


def _guarded(
    name: ArmName, *options: SafeguardOptions, rate_factor: float = 1.0, rate_of: ArmName | None = None
) -> Arm:
    return Arm(UniformStrategy(label=name, safeguards=Safeguards(*options)), rate_factor, rate_of)


def _replayed(
    name: ArmName, *, weight: float = 1, safety_rows: int, answer_tokens: int, safe_share: float | None = None
) -> Arm:
    """A KL penalty at the rate of uniform."""
    options = KlToBase(weight=weight, safety_rows=safety_rows, answer_tokens=answer_tokens, safe_share=safe_share)
    return _guarded(name, options, rate_of="uniform")


_PLAIN: dict[ArmName, Arm] = {
    "uniform": Arm(UniformStrategy()),
    "half_rate": Arm(UniformStrategy(label="half_rate"), 0.5, "uniform"),
    "quarter_rate": Arm(UniformStrategy(label="quarter_rate"), 0.25, "uniform"),
    "ml_lr": Arm(MlLrStrategy(ratio=_RATIO)),
    "ml_lr_continuous": Arm(MlLrContinuousStrategy(ratio=_RATIO)),
    "swat": Arm(SwatStrategy()),
    "freeze_layers": Arm(FreezeLayersStrategy()),
    "safety_mix": _guarded("safety_mix", SafetyMix()),
    "half_rate_safety_mix": _guarded("half_rate_safety_mix", SafetyMix(), rate_factor=0.5, rate_of="safety_mix"),
    "first_tokens": _guarded("first_tokens", ConstrainedFirstTokens()),
    "kl_to_base": _guarded("kl_to_base", _REPLAY),
    "kl_to_base_safety_mix": _guarded("kl_to_base_safety_mix", _REPLAY, SafetyMix()),
    # Of later plans, at the rate of uniform, since the sweeps of kl_to_base chose it too.
    "kl_to_base_2_rows": _replayed("kl_to_base_2_rows", safety_rows=2, answer_tokens=1000),
    "kl_to_base_x3": _replayed("kl_to_base_x3", weight=3, safety_rows=4, answer_tokens=1000),
    "kl_to_base_x10": _replayed("kl_to_base_x10", weight=10, safety_rows=4, answer_tokens=1000),
    "kl_to_base_x3_safety_mix": _guarded(
        "kl_to_base_x3_safety_mix", _REPLAY.model_copy(update={"weight": 3.0}), SafetyMix(), rate_of="uniform"
    ),
    "half_rate_kl_to_base": _guarded("half_rate_kl_to_base", _REPLAY, rate_factor=0.5, rate_of="uniform"),
    "kl_16_tokens": _replayed("kl_16_tokens", safety_rows=2, answer_tokens=16),
    "kl_16_tokens_x3": _replayed("kl_16_tokens_x3", weight=3, safety_rows=2, answer_tokens=16),
    "kl_16_tokens_x3_1_row": _replayed("kl_16_tokens_x3_1_row", weight=3, safety_rows=1, answer_tokens=16),
    "kl_16_tokens_x10": _replayed("kl_16_tokens_x10", weight=10, safety_rows=2, answer_tokens=16),
    "kl_16_tokens_x10_4_rows": _replayed("kl_16_tokens_x10_4_rows", weight=10, safety_rows=4, answer_tokens=16),
    "kl_balanced": _replayed("kl_balanced", weight=10, safety_rows=4, answer_tokens=16, safe_share=0.5),
    "kl_balanced_x5": _replayed("kl_balanced_x5", weight=5, safety_rows=4, answer_tokens=16, safe_share=0.5),
    "kl_5_tokens_x3": _replayed("kl_5_tokens_x3", weight=3, safety_rows=2, answer_tokens=5),
    "average_weights": _guarded("average_weights", AverageWeights(decay=_DECAY)),
    "scale_update": _guarded("scale_update", ScaleUpdate(), rate_of="uniform"),
    "keep_safe_weights": _guarded("keep_safe_weights", KeepSafeWeights(), rate_of="uniform"),
    "self_distill": _guarded("self_distill", SelfDistill()),
    "answer_preview": _guarded("answer_preview", AnswerPreview()),
}
"""Arms that do not depend on the model's modules."""
_WITH_ATTENTION: dict[ArmName, Safeguards] = {
    "attention_safety_mix": Safeguards(SafetyMix()),
    "attention_kl_to_base": Safeguards(_REPLAY),
}


Maps = Callable[[], RobustnessResult]
"""Computes the map, or reads it; only arms that need one call it."""


def build_arm(name: ArmName, modules: Sequence[Module], compute_map: Maps, *, seed: int) -> Arm:
    """The arm of this name on a model with these modules. `seed` decides random sets."""
    if name in _PLAIN:
        return _PLAIN[name]
    chosen = _choose_set(name, modules, compute_map, seed)
    strategy = ModulesStrategy(
        label=name, full_rate=chosen, ratio=_RATIO, safeguards=_WITH_ATTENTION.get(name, Safeguards())
    )
    return Arm(strategy, rate_of="ml_lr" if name.startswith("random_") else None)


def needs_map(name: ArmName) -> bool:
    """Whether the arm depends on a robustness map."""
    return name in ("ml_lr", "ml_lr_continuous", "swat", "inverse") or name.startswith("random_")


def _choose_set(name: ArmName, modules: Sequence[Module], compute_map: Maps, seed: int) -> tuple[str, ...]:
    """The modules at the full rate."""
    match name:
        case "attention" | "attention_safety_mix" | "attention_kl_to_base":
            return tuple(module.name for module in modules if module.type in _ATTENTION)
        case "mlp":
            return tuple(module.name for module in modules if module.type not in _ATTENTION)
        case "inverse":
            robust = frozenset(compute_map().robust)
            return tuple(module.name for module in modules if module.name not in robust)
        case _:
            number = int(name.removeprefix("random_"))
            return random_set(modules, frozenset(compute_map().robust), 10 * seed + number)
