"""`safe_template`: trains without a system prompt and serves with a safety prompt (PTST, Lyu et al. 2024).

Not here: evaluation with the safety prompt (core.safeguards.system_prompt).
"""

from typing_extensions import override

from core.data import Conversation
from core.safeguards.interface import Safeguard
from core.safeguards.system_prompt import without_system_turns
from core.schemas.safeguards import SafeTemplate


class PromptAfterTraining(Safeguard[SafeTemplate]):
    """Removes system turns from the rows trained on."""

    options_class = SafeTemplate

    @override
    def training_row(self, row: Conversation) -> Conversation:
        return without_system_turns(row)
