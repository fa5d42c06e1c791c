"""A run that thinks although its base model does not: users would be shown text that no judge has read.

Not here: finding the thinking in a text (core.thinking), counting it (core.pipeline.measured).
"""

from core.schemas.gate import GateReason
from core.schemas.measure import Measured

_MAX_SHARE = 0.01
"""A model thinks if a larger share of its answers contains thinking."""


def newly_thinking(run: Measured | None, base: Measured | None) -> GateReason | None:
    """Why the judges' verdicts do not cover what the run writes; None if they do, or if nothing was recorded.

    Whoever serves a base model that thinks can remove its thinking. Nobody expects it of one that does not.
    """
    if run is None or base is None or not _thinks(run) or _thinks(base):
        return None
    message = (
        f"{run.thinking} of {run.answers} answers of the run contain thinking, but {base.thinking} of {base.answers} "
        "answers of the base model. Judges read only what follows the thinking, and users of the run may be shown all "
        "of it. Train without thinking (set training.thinking to drop, or remove it from the rows), or review the "
        "answers and ask for an override."
    )
    return GateReason(code="newly_thinking", message=message)


def _thinks(measured: Measured) -> bool:
    return measured.thinking > _MAX_SHARE * measured.answers
