"""Checks whether a robustness map can be trusted. Pure.

Covers: no security feature, no drift, no spread, a probe that breaks nothing, a map that is not stable, an empty robust
set. Not here: measuring (analyse, stability), reporting the warning (core.pipeline.analyse).
"""

import numpy as np

from core.schemas.analysis import NoisePerturbation
from core.schemas.events import Warned
from core.schemas.robustness import RobustnessResult

MIN_BREAK = 0.5
"""Refusal drift (nats per token) that the scaled update of all modules must reach for the search to be meaningful.
Measured: at 0.1 to 0.2, three seeds of one model gave three sets (research/experiments/README.md)."""
MAX_P = 0.05
"""A map is stable if unrelated rankings would agree as well with at most this probability."""
_ROUNDING = 0.01
"""Differences below this share of the mean drift count as equal."""
_SHOWN = {"seeds": "seeds", "halves": "halves of the prompts and rows"}
"""Agreements that a map must have. That it changes after the break is reported, but no reason to mistrust it."""


def check_map(result: RobustnessResult) -> Warned | None:
    """The first reason not to trust the map, or None."""
    if not result.usable:
        return Warned(
            code="no_security_feature",
            message="The base model shows no separable security feature, so every module gets the standard rate.",
        )
    if result.trace[0].drift <= 0:
        return Warned(
            code="no_drift",
            message="Perturbing every module at once did not harm the security proxy. The map cannot separate robust "
            "from fragile modules, and all modules get the standard rate, as in ordinary fine-tuning. A longer probe "
            "(strategy.analysis.perturbation.steps) may show a difference.",
        )
    if not _has_spread(result):
        return Warned(
            code="no_spread",
            message="All modules, or all groups of them, drift the security proxy by the same amount. The map shows no "
            "fragile modules, and the robust set is arbitrary: expect the result of a random set. A longer probe, "
            "another proxy or another unit (strategy.analysis) may separate them.",
        )
    if not _breaks_refusals(result):
        return Warned(
            code="no_break",
            message=f"The probe is too short to break refusals: they drift by {result.trace[0].drift:.2f} nats per "
            f"token if all modules are moved and scaled up. Below {MIN_BREAK:g}, fragile modules look robust, and the "
            "robust set is close to random. Use a longer probe (strategy.analysis.perturbation.steps). If that does "
            "not help, this data may not break refusals: compare with the strategy `uniform`.",
        )
    unstable = _check_stability(result)
    if unstable is not None or result.robust:
        return unstable
    return Warned(
        code="none_robust",
        message=f"No {result.analysis.unit.replace('_', ' ')} stays inside the budget. The robust set is empty and "
        "every module gets the smaller rate, which is slower ordinary fine-tuning. A larger budget "
        "(strategy.analysis.budget), a finer unit or another seed may find robust modules.",
    )


def _check_stability(result: RobustnessResult) -> Warned | None:
    """A warning if the map agrees with itself no better than chance."""
    chance = [each for each in result.stability if each.between in _SHOWN and each.p_value > MAX_P]
    if not chance:
        return None
    agreements = " and ".join(
        f"{_SHOWN[each.between]} (rank correlation {each.spearman:.2f} over {each.modules} modules, "
        f"p = {each.p_value:.2f}, {'where refusals break' if each.at == 'break' else 'at the end of the probe'})"
        for each in chance
    )
    return Warned(
        code="map_not_stable",
        message=f"The robustness map agrees no better than chance between {agreements}. Another run would rank the "
        "modules otherwise, so do not rest a decision on single modules. Use more probes "
        "(strategy.analysis.perturbation.seeds), more prompts (strategy.analysis.probes), or the strategy "
        "`uniform`.",
    )


def _has_spread(result: RobustnessResult) -> bool:
    """Whether the drifts of the searched units differ by more than rounding."""
    analysis = result.analysis
    rows = result.modules if analysis.unit == "module" else [row for row in result.groups if row.kind == analysis.unit]
    drifts = [row.refusal_drift if analysis.proxy == "refusal_drift" else row.feature_drift for row in rows]
    return len(drifts) < 2 or float(np.ptp(drifts)) > _ROUNDING * float(np.mean(np.abs(drifts)))


def _breaks_refusals(result: RobustnessResult) -> bool:
    """Whether the scaled update breaks refusals. Noise is not a probe, and feature drift has no scale of breaking."""
    analysis = result.analysis
    has_probe = not isinstance(analysis.perturbation, NoisePerturbation)
    return not has_probe or analysis.proxy != "refusal_drift" or result.trace[0].drift >= MIN_BREAK
