"""System prompts that a safeguard requires when the model is served: evaluation must use the same ones.

Not here: which safeguard requires one (`serving_system_prompt` in core.schemas.safeguards).
"""

from dataclasses import replace

from core.data import Conversation
from core.errors import InvalidInput
from core.lm.load import BaseModel
from core.lm.prompts import render
from core.schemas.data import Message
from core.schemas.safeguards import SafeguardOptions


def without_system_turns(row: Conversation) -> Conversation:
    """The row without its system turns; the same object if it has none."""
    turns = tuple(message for message in row.messages if message.role != "system")
    return row if len(turns) == len(row.messages) else replace(row, messages=turns)


def with_system_prompt(row: Conversation, prompt: str) -> Conversation:
    """The row with this system prompt instead of its own system turns."""
    system = Message(role="system", content=prompt)
    return row if row.whole else replace(row, messages=(system, *without_system_turns(row).messages))


def check_system_prompt(options: SafeguardOptions, base: BaseModel) -> None:
    """Reject a safeguard that needs a system prompt if the base model's chat template does not accept one.

    Raises:
        InvalidInput: code `chat_template_unsupported`.
    """
    if options.serving_system_prompt is None:
        return
    turns = (Message(role="system", content=options.serving_system_prompt), Message(role="user", content="Hello"))
    try:
        render(base.tokenizer, turns)
    except InvalidInput as error:
        raise InvalidInput(
            f"The safeguard {options.name} needs a system prompt, and the base model's chat template does not accept "
            "one. Leave the safeguard out or choose another base model.",
            code=error.code,
            param=f"strategy.safeguards.{options.name}",
        ) from error
