"""System prompts that a safeguard requires when the model is served: evaluation must use the same ones.

Chat templates without system turns get the prompt in the first user turn (core.lm.prompts). Not here: which safeguard
requires one (`serving_system_prompt` in core.schemas.safeguards).
"""

from dataclasses import replace

from core.data import Conversation
from core.schemas.data import Message


def without_system_turns(row: Conversation) -> Conversation:
    """The row without its system turns; the same object if it has none."""
    turns = tuple(message for message in row.messages if message.role != "system")
    return row if len(turns) == len(row.messages) else replace(row, messages=turns)


def with_system_prompt(row: Conversation, prompt: str) -> Conversation:
    """The row with this system prompt instead of its own system turns."""
    system = Message(role="system", content=prompt)
    return row if row.whole else replace(row, messages=(system, *without_system_turns(row).messages))
