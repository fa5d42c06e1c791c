"""The gate: decides from a run's figures and the project's policy whether its adapter is released.

Covers: rules on the figures (core.gate.decide), the measurement that a policy pins (core.gate.pinned), text that no
judge has read (core.gate.thinking). Pure functions.
Not here: the rules themselves (core.schemas.policy), the figures (core.attacks.count), downloads (api).
"""

from core.gate.decide import decide
from core.gate.pinned import less_than_pinned

__all__ = ["decide", "less_than_pinned"]
