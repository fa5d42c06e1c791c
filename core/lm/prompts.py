"""Renders conversations with the tokenizer's own chat template, ready to be answered.

Covers: whether a prompt opens the model's thinking.

Not here: training rows and their loss mask (core.data.template).
"""

from collections.abc import Sequence

import torch
from jinja2 import TemplateError
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from core.errors import InvalidInput
from core.schemas.data import Message, merge_system
from core.thinking import find_opening, may_open, opening_at_end, split_thinking


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, begun: bool = True) -> list[int]:
    """Token ids of a conversation up to the start, or the continuation, of the assistant's answer.

    If `begun`, a last turn of the assistant is the literal beginning of its answer and stays open. Otherwise it is a
    complete turn, as for a classifier that reads whole conversations.

    Raises:
        InvalidInput: code `chat_template_unsupported`; the template rejects the turns, as some do with a system turn.
    """
    opening = messages[-1].content if begun and messages[-1].role == "assistant" else None
    text = _write(tokenizer, messages if opening is None else messages[:-1])
    # Tokenized together: a token may span the end of the template's text and the start of the opening.
    return tokenizer(text + (opening or ""), add_special_tokens=False)["input_ids"]


def find_open_thinking(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """What opens the thinking that the answer to a conversation begins in, such as `<think>`; empty if nothing does.

    The template may open it at the end of the prompt, or a last turn of the assistant, which the answer continues.
    Raises what `render` raises.
    """
    *turns, last = messages
    begun = last.content if last.role == "assistant" else ""
    before = ""
    if may_open(str(tokenizer.chat_template)):
        before = opening_at_end(_write(tokenizer, turns if last.role == "assistant" else messages))
    if not split_thinking(f"{before}\n{begun}", opened=False).cut:
        return ""
    return before or find_opening(begun)


def _write(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """The text of a conversation up to the start of the assistant's answer.

    Without a place for system turns in the template, the system text is put before the first user turn, as in training.
    """
    merged = merge_system(messages)
    problem: TemplateError | None = None
    for turns in (messages, merged):
        try:
            text = _apply(tokenizer, turns)
        except TemplateError as error:
            problem = error
        else:
            if turns is merged or messages[0].content.strip() in text:
                return text
    roles = ", ".join(message.role for message in messages)
    raise InvalidInput(
        f"The base model's chat template rejects a prompt with these turns: {roles}. Its message: {problem}. "
        "Remove security.system_prompt if there is one, or choose another base model.",
        code="chat_template_unsupported",
        param="security.system_prompt" if messages[0].role == "system" else "base_model",
    ) from problem


def _apply(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    turns = [message.for_template() for message in messages]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def pad(rows: Sequence[Sequence[int]], pad_id: int, *, side: str) -> tuple[Tensor, Tensor]:
    """Rows of different lengths as `input_ids` and `attention_mask`, both `batch seq`, padded on the given side."""
    ids = [torch.tensor(row, dtype=torch.long) for row in rows]
    mask = [torch.ones_like(row) for row in ids]
    return (
        pad_sequence(ids, batch_first=True, padding_value=pad_id, padding_side=side),
        pad_sequence(mask, batch_first=True, padding_side=side),
    )
