"""Counts the answers that the base model writes for a run's safeguards before the run is trained.

Without torch, since estimates count them too. Not here: writing them (core.safeguards), the time that they take
(core.orders.estimate).
"""

from collections.abc import Sequence
from typing import NamedTuple

from core.data import Conversation
from core.data.frame import find_frame
from core.schemas.prompts import PromptSet
from core.schemas.safeguards import Safeguards


class PlannedAnswers(NamedTuple):
    """Answers to be generated."""

    calls: int
    tokens: int
    """Limit on their length, added up."""


def count_answers(
    safeguards: Safeguards, prompts: PromptSet, rows: Sequence[Conversation], *, max_new_tokens: int
) -> PlannedAnswers:
    """Count the answers for the safeguards of one run, at most. `max_new_tokens` is that of `security`."""
    framed = bool(len(safeguards)) and find_frame(rows) is not None
    counted = [
        (each.answers(prompts, rows=len(rows), framed=framed) or 0, each.answer_length(max_new_tokens))
        for each in safeguards
    ]
    return PlannedAnswers(sum(count for count, _ in counted), sum(count * length for count, length in counted))
