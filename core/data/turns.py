"""From a conversation to text by the model's chat template, cut into what is trained on and what is not.

Each assistant turn is trained in the context that the model sees when it is served: the template's own prompt for the
turns before it. Turns share a row as long as the template writes earlier turns unchanged. Where it rewrites them, as
models that think drop earlier thoughts, each turn becomes a row. A marker stands for the turn's own text while the
template is rendered, so the text is trained to the character even if the template strips or changes it.
Covers: several turns, thinking, tool calls, templates without system turns, with content in parts or with generation
tags. Not here: tokens and labels (core.data.template), what a row may contain (core.data.layouts).
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from jinja2 import TemplateError
from pydantic import JsonValue
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from core.schemas.data import Message, ToolCall, merge_system
from core.thinking import opening_at_end

_TEXT, _THOUGHT = "\ue000text\ue001", "\ue000thought\ue001"
"""Markers from Unicode's private use area, which templates neither strip nor change."""
_THINKING_FIELDS = ("reasoning_content", "thinking", "reasoning")
_MODES: tuple[dict[str, Any], ...] = (
    {},
    {"enable_thinking": False, "thinking": False},
    {"enable_thinking": True, "thinking": True},
)
"""Arguments of the template to try for the prompt: as served by default, then with thinking switched off and on."""
_GENERATION_TAG = re.compile(r"\{%-?\s*generation\s*-?%\}")
_CONTROL = re.compile(r"<[^<>\n]{1,40}>|\[/?[A-Z_]{2,30}\]")
"""What control tokens look like. The border between prompt and answer never lies within one."""
_QUESTION = Message(role="user", content="Hello")
_ANSWER = Message(role="assistant", content=_TEXT)
_CALL = Message(
    role="assistant", content="", tool_calls=(ToolCall(name="look", arguments={"at": "it"}, id="call00000"),)
)
_WORD = re.compile(r"\w+")

ToolDefinition = dict[str, Any]


class UnsupportedTurns(Exception):
    """The template cannot express a conversation. It never leaves core.data."""


@dataclass(frozen=True)
class TrainedTurn:
    """One assistant turn in the text that the template makes."""

    context: str
    """All text before the turn, as the model sees it when it is served."""
    text: str
    """The turn: thinking, what the template writes around it, the answer, tool calls."""
    tail: str
    """What the template writes after the turn's text. It begins with the token that ends the turn, if there is one."""

    @property
    def end(self) -> str:
        """All text up to the end of the turn."""
        return self.context + self.text + self.tail


class ChatTemplate:
    """The chat template of a tokenizer.

    Raises:
        UnsupportedTurns: the template cannot render a question and its answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._in_parts = False
        self._thinking_field: str | None = None
        self._arguments_in_text = False
        if not self._writes(_TEXT, _QUESTION, _ANSWER):
            # Templates of models that also see images expect content as a list of parts.
            self._in_parts = True
            if _TEXT not in self._write((_QUESTION, _ANSWER)):
                raise UnsupportedTurns("it omits the assistant's turn")
        self._thinking_field = next(self._find_thinking_fields(), None)
        self.has_thinking = self._thinking_field is not None
        """Whether it can write what the assistant thought. Otherwise the thoughts stand in the answer, between tags."""
        # Templates expect the arguments of a call as an object, or, as the OpenAI API has them, as a text.
        self._arguments_in_text = self._try((_QUESTION, _CALL)) is None
        self.tail = self._write((_QUESTION, _ANSWER)).rpartition(_TEXT)[2]
        """What the template writes after an answer."""
        self.has_system = self._writes(_TEXT, Message(role="system", content=_TEXT), _QUESTION)
        """Whether it can write a system turn. Otherwise the system turn is merged into the first user turn."""

    def split_rows(self, messages: Sequence[Message], tools: Sequence[ToolDefinition] = ()) -> list[list[TrainedTurn]]:
        """The trained turns of a conversation by row: `context` of a row's last turn contains its earlier turns.

        Raises:
            UnsupportedTurns: the template rejects, omits or changes a part of the conversation.
        """
        if not self.has_system:
            messages = merge_system(messages)
        rows: list[list[TrainedTurn]] = []
        for index, message in enumerate(messages):
            if message.role != "assistant" or not message.trained:
                continue
            turn = self._render_turn(messages[:index], message, tools)
            if rows and turn.context.startswith(rows[-1][-1].end):
                rows[-1].append(turn)
            else:
                rows.append([turn])
        return rows

    def _render_turn(self, before: Sequence[Message], message: Message, tools: Sequence[ToolDefinition]) -> TrainedTurn:
        if message.thinking and not self.has_thinking:
            message = _think_inline(message)
        marked, (text_mark, thought_mark) = message, _find_free_marks((*before, message))
        if message.content:
            marked = marked.model_copy(update={"content": text_mark})
        if message.thinking:
            marked = marked.model_copy(update={"thinking": thought_mark})
        text, marks = self._write_with_marks((*before, marked), tools)
        for marker, wanted in ((text_mark, message.content), (thought_mark, message.thinking)):
            if wanted and text.count(marker) != 1:
                raise UnsupportedTurns("it omits or repeats a part of the assistant's turn")
        places = (place for marker in (text_mark, thought_mark) if (place := text.find(marker)) >= 0)
        context, turn = self._split_context(before, text, marks, tools, limit=min(places, default=len(text)))
        body, tail = self._split_tail(turn, message, text_mark)
        if not all(_mentions(body, {call.name: call.arguments}) for call in message.tool_calls):
            raise UnsupportedTurns("it has no place for tool calls")
        if not all(_mentions(context, tool.get("function", tool).get("name", "")) for tool in tools):
            raise UnsupportedTurns("it has no place for the definitions of tools")
        _check_context(before, context)
        return TrainedTurn(
            context, body.replace(text_mark, message.content).replace(thought_mark, message.thinking or ""), tail
        )

    def _split_context(
        self, before: Sequence[Message], text: str, marks: Sequence[int], tools: Sequence[ToolDefinition], *, limit: int
    ) -> tuple[str, str]:
        """The text that the model is given before this turn, and the turn with everything that follows it.

        `limit` is where the turn's own text begins.
        """
        served = self._write(before, prompt=True, tools=tools)
        shared = _shared_length(served, text[:limit])
        if (mark := next((mark for mark in marks if shared - 1 <= mark <= limit), None)) is not None:
            return text[:mark], text[mark:]
        for mode in _MODES:
            prompt = self._write(before, prompt=True, tools=tools, mode=mode) if mode else served
            if len(prompt) <= limit and text.startswith(prompt):
                return prompt, text[len(prompt) :]
        history = self._try(before, tools=tools)
        if history is None or not text.startswith(history):
            # Some templates write the system turn into the last user turn, and nowhere once an answer follows.
            return served, text[_end_of_shared_suffix(served, text[:limit]) :]
        shared = _outside_control_tokens(text, shared)
        # A served model continues an open thought, so a turn without one is trained where the thought would begin.
        return (text[:shared] if opening_at_end(served) else served), text[shared:]

    def _split_tail(self, turn: str, message: Message, text_mark: str) -> tuple[str, str]:
        """The turn's text, and what the template writes after it."""
        if message.tool_calls or not message.content:
            return (turn[: len(turn) - len(self.tail)], self.tail) if turn.endswith(self.tail) else (turn, "")
        head, marker, tail = turn.rpartition(text_mark)
        return head + marker, tail

    def _write_with_marks(self, messages: Sequence[Message], tools: Sequence[ToolDefinition]) -> tuple[str, list[int]]:
        """The text of a conversation, and where the parts begin that the template's generation tags mark."""
        # A tokenizer may have several named templates, one of them for conversations with tools.
        template = str(self._tokenizer.get_chat_template(tools=list(tools) or None))
        if not _GENERATION_TAG.search(template):
            return self._write(messages, tools=tools), []
        try:
            texts, spans = render_jinja_template(
                conversations=[[self._as_dict(message) for message in messages]],
                tools=list(tools) or None,
                chat_template=template,
                return_assistant_tokens_mask=True,
                add_generation_prompt=False,
                **cast("dict[str, Any]", self._tokenizer.special_tokens_map),
            )
        except (TemplateError, TypeError) as error:
            raise UnsupportedTurns(f"it reports: {error}") from error
        return str(texts[0]), [int(start) for start, _ in spans[0]]

    def _find_thinking_fields(self) -> Iterator[str]:
        for field in _THINKING_FIELDS:
            self._thinking_field = field
            if self._writes(_THOUGHT, _QUESTION, _ANSWER.model_copy(update={"thinking": _THOUGHT})):
                yield field

    def _writes(self, marker: str, *messages: Message) -> bool:
        return marker in (self._try(messages) or "")

    def _try(self, messages: Sequence[Message], *, tools: Sequence[ToolDefinition] = ()) -> str | None:
        try:
            return self._write(messages, tools=tools)
        except UnsupportedTurns:
            return None

    def _write(
        self,
        messages: Sequence[Message],
        *,
        prompt: bool = False,
        tools: Sequence[ToolDefinition] = (),
        mode: dict[str, Any] | None = None,
    ) -> str:
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    [self._as_dict(message) for message in messages],
                    tools=list(tools) or None,
                    tokenize=False,
                    add_generation_prompt=prompt,
                    **(mode or {}),
                )
            )
        except (TemplateError, TypeError) as error:
            raise UnsupportedTurns(f"it reports: {error}") from error

    def _as_dict(self, message: Message) -> dict[str, Any]:
        found = message.for_template(self._thinking_field or _THINKING_FIELDS[0])
        for call in found.get("tool_calls", ()) if self._arguments_in_text else ():
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
        return found | {"content": [{"type": "text", "text": message.content}]} if self._in_parts else found


def _think_inline(message: Message) -> Message:
    """The turn with its thoughts in the answer, as models write them whose templates know nothing of thinking."""
    content = f"<think>\n{message.thinking}\n</think>\n\n{message.content}"
    return message.model_copy(update={"thinking": None, "content": content})


def _find_free_marks(messages: Sequence[Message]) -> tuple[str, str]:
    """Markers of a turn's text and thinking that no turn contains."""
    text, thought = _TEXT, _THOUGHT
    written = [each for message in messages for each in (message.content, message.thinking or "")]
    while any(mark in each for mark in (text, thought) for each in written):
        text, thought = f"{_TEXT[0]}{text}", f"{_TEXT[0]}{thought}"
    return text, thought


def _mentions(text: str, value: JsonValue) -> bool:
    """Whether a text contains every word and whole number of a value, however they are written."""
    match value:
        case dict():
            return all(_mentions(text, name) and _mentions(text, inner) for name, inner in value.items())
        case list():
            return all(_mentions(text, inner) for inner in value)
        case str() | int() if not isinstance(value, bool):
            return all(word in text for word in _WORD.findall(str(value)))
        case _:  # true, null and 0.1 are written in many ways
            return True


def _check_context(before: Sequence[Message], context: str) -> None:
    for number, message in enumerate(before, 1):
        if message.role != "assistant" and message.content.strip() not in context:
            raise UnsupportedTurns(f"it omits or changes turn {number}, of the role {message.role}")


def _shared_length(one: str, other: str) -> int:
    """Number of characters at the beginning that two texts share."""
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return min(len(one), len(other))


def _outside_control_tokens(text: str, place: int) -> int:
    """`place`, or the start of the control token that it lies in."""
    return next((token.start() for token in _CONTROL.finditer(text) if token.start() < place < token.end()), place)


def _end_of_shared_suffix(prompt: str, head: str) -> int:
    """Where the end of `prompt` ends in `head`, near the end of `head`; else the end of `head`."""
    for place in range(len(head), max(0, len(head) - 40), -1):
        if prompt.endswith(head[max(0, place - 6) : place]):
            return place
    return len(head)
