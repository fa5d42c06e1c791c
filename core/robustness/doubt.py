"""Says why a robustness map should not be trusted, where there is a reason. Pure.

Covers: no security feature, no drift, no spread, a probe that breaks nothing, nothing robust. Not here: measuring
(analyse), telling the job (core.pipeline.steps).
"""

import numpy as np

from core.schemas.analysis import NoisePerturbation
from core.schemas.events import Warned
from core.schemas.robustness import RobustnessResult

LEAST_BREAK = 0.5
"""Refusal drift (nats per token) that moving everything, stretched, has to reach for the search to mean something.
Measured: at 0.1 to 0.2 three seeds of one model gave three sets (research/experiments/README.md)."""
_ROUNDING = 0.01
"""Differences below this share of the mean drift are taken for none."""


def doubt(found: RobustnessResult) -> Warned | None:
    """Why the map should not be trusted, if there is a reason."""
    if not found.usable:
        return Warned(
            code="no_security_feature",
            message="The base model shows no separable security feature, so every module gets the standard rate.",
        )
    if found.trace[0].drift <= 0:
        return Warned(
            code="no_drift",
            message="Moving every module at once did no harm to the security proxy, so the map tells no module "
            "from another and all of them get the standard rate, as in ordinary fine-tuning. A longer probe "
            "(strategy.analysis.perturbation.steps) may show more.",
        )
    if not _tells_apart(found):
        return Warned(
            code="no_spread",
            message="Every module, or group of them, drifts the security proxy by the same amount, so the map has "
            "no fragile ones to hold back: which of them are in the robust set is chance. Expect what a random "
            "set would do. A longer probe, another proxy or another unit (strategy.analysis) may tell them apart.",
        )
    if not _sees_break(found):
        return Warned(
            code="no_break",
            message=f"The probe is too short to break anything: refusals drift by {found.trace[0].drift:.2f} nats per "
            f"token where everything is moved and stretched, and below {LEAST_BREAK:g} fragile modules look robust, so "
            "which are in the robust set is close to chance. A longer probe (strategy.analysis.perturbation.steps) "
            "reads it later. It may also be that this data breaks nothing: compare with uniform.",
        )
    if not found.robust:
        return Warned(
            code="none_robust",
            message=f"No {found.analysis.unit.replace('_', ' ')} stays inside the budget, so the robust set is empty "
            "and every module gets the smaller rate: ordinary fine-tuning, only slower. A larger budget "
            "(strategy.analysis.budget), a finer unit or another seed may find one.",
        )
    return None


def _tells_apart(found: RobustnessResult) -> bool:
    """Whether the map has any spread: drifts of the units that the search went along differ by more than rounding."""
    analysis = found.analysis
    rows = found.modules if analysis.unit == "module" else [row for row in found.groups if row.kind == analysis.unit]
    drifts = [row.refusal_drift if analysis.proxy == "refusal_drift" else row.feature_drift for row in rows]
    return len(drifts) < 2 or float(np.ptp(drifts)) > _ROUNDING * float(np.mean(np.abs(drifts)))


def _sees_break(found: RobustnessResult) -> bool:
    """Whether the stretched probe breaks the refusals. Noise is no probe, and features have no scale of breaking."""
    analysis = found.analysis
    probed = not isinstance(analysis.perturbation, NoisePerturbation)
    return not probed or analysis.proxy != "refusal_drift" or found.trace[0].drift >= LEAST_BREAK
