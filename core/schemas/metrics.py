"""What figures are called: metrics, and the suites that are no attack.

Not here: figures (core.schemas.evaluation), how they are computed (core.attacks.count, core.quality).
"""

from typing import Literal

Metric = Literal[
    "attack_success_rate",
    "harmfulness",
    "strongreject",
    "over_refusal_rate",
    "loss",
    "perplexity",
    "exact_match",
    "rouge_l",
    "accuracy",
    "score",
]
OVER_REFUSAL = "over_refusal"
TASK = "task"
