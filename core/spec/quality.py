"""How task performance is measured: the `quality` part of a job spec.

Not here: the measuring (core.quality).
"""

from pydantic import Field

from core.spec.base import Frozen


class QualitySpec(Frozen):
    """Task figures before and after training, on rows that are not trained on."""

    max_rows: int = Field(default=200, ge=1, le=100_000)
    """At most so many validation rows are scored."""
