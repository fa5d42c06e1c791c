"""Safeguards: options that any strategy can be combined with, each taking effect before, during or after training or
when the model is served.

Covers: which safeguards there are, in the order in which they take effect. Not here: what they do (core.safeguards).
"""

from core.schemas.safeguards.chosen import Safeguards
from core.schemas.safeguards.interface import PlannedAnswers, SafeguardOptions, register, unregister
from core.schemas.safeguards.loss import ConstrainedFirstTokens, KlToBase
from core.schemas.safeguards.rows import (
    SAFETY_PROMPT,
    AnswerPreview,
    SafeTemplate,
    SafetyMix,
    SafetyRequests,
    SelfDistill,
    mixed_rows,
)
from core.schemas.safeguards.weights import (
    MAX_REFUSAL_DRIFT,
    AverageWeights,
    KeepSafeWeights,
    ProjectToSafe,
    ScaleUpdate,
)

__all__ = [
    "MAX_REFUSAL_DRIFT",
    "SAFETY_PROMPT",
    "AnswerPreview",
    "AverageWeights",
    "ConstrainedFirstTokens",
    "KeepSafeWeights",
    "KlToBase",
    "PlannedAnswers",
    "ProjectToSafe",
    "SafeTemplate",
    "SafeguardOptions",
    "Safeguards",
    "SafetyMix",
    "SafetyRequests",
    "ScaleUpdate",
    "SelfDistill",
    "mixed_rows",
    "register",
    "unregister",
]

for _options in (
    SafetyMix,
    ConstrainedFirstTokens,
    ProjectToSafe,
    SafeTemplate,
    KlToBase,
    SelfDistill,
    AnswerPreview,
    AverageWeights,
    KeepSafeWeights,
    ScaleUpdate,
):
    register(_options)
