"""Names of metrics, and of the suites that are not attacks.

Not here: figures (core.schemas.evaluation), their computation (core.attacks.count, core.quality).
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
"""Suite of safe look-alikes."""
TASK = "task"
"""Suite of the job's own validation rows."""
