"""Lists of messages: OpenAI's `role` and `content`, ShareGPT's `from` and `value`.

Covers: names of roles, content in parts, tool calls in their spellings, marks on turns, open turns at the end.
Not here: which column has the messages (core.data.layouts), what a chat template makes of them (core.data.turns).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.data import fields
from core.data.fields import InvalidRow
from core.data.jsontext import clip, kind
from core.schemas.data import Message, Role, ToolCall

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "ipython": "tool",
}
_TEXT_PARTS = ("text", "input_text", "output_text")
_CALLS = ("function_call", "tool_call")
_PLAIN = frozenset(("role", "content"))
_PLAIN_ROLES = ("user", "assistant", "system")
_USED = frozenset(
    ("role", "content", "from", "value", "name", "tool_calls", "function_call", "tool_call_id", "tool_responses")
)


@dataclass(frozen=True)
class Chat:
    """The messages of a row."""

    messages: tuple[Message, ...]
    """All turns up to the last assistant turn."""
    cut: int = 0
    """Number of turns after it, which have no answer."""
    ignored: tuple[str, ...] = ()
    """Names of fields of turns that are not used."""
    trained: bool = True
    """Whether any assistant turn is trained on."""


@dataclass(frozen=True)
class Content:
    """The content of a turn."""

    text: str = ""
    thinking: str | None = None
    """What stands in parts of the type `thinking`."""


def read_chat(value: object, where: str) -> Chat:
    """The turns in a list of messages.

    Args:
        value: the list, or its JSON text.
        where: name of the column, for errors.

    Raises:
        InvalidRow: it is not a list of messages, has no assistant turn, or has a field that cannot be honoured.
    """
    items = fields.parsed(value, where)
    if not isinstance(items, list):
        raise InvalidRow(where, f"expected a list of messages, found {kind(items)}")
    ignored: dict[str, None] = {}
    messages: list[Message] = []
    last, trained = 0, False
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise InvalidRow(f"{where}[{index}]", f"expected an object with role and content, found {kind(item)}")
        message = _plain_message(item)
        if message is None:
            ignored |= dict.fromkeys(f"messages[].{name}" for name in fields.ignored(item, _USED))
            message = _message(item, f"{where}[{index}].")
        if message is not None:
            messages.append(message)
            if message.role == "assistant":
                last = len(messages)
                trained = trained or message.trained
    if not last:
        raise InvalidRow(where, "the row has no assistant turn, so there is nothing to train on")
    return Chat(tuple(messages[:last]), len(messages) - last, tuple(ignored), trained)


def _plain_message(item: dict[str, object]) -> Message | None:
    """The turn, if it is a text and nothing else: nearly all are, and this is several times as fast as `_message`."""
    if item.keys() != _PLAIN:
        return None
    role, content = item["role"], item["content"]
    if not isinstance(content, str) or role not in _PLAIN_ROLES or "\0" in content or not content.isascii():
        return None
    return Message(role=role, content=content) if content.strip() else None  # type: ignore[arg-type]


def _message(item: Mapping[str, object], prefix: str) -> Message | None:
    """One turn; None for an empty system turn."""
    fields.check_refused(item, prefix)
    role_field = "from" if "from" in item and "role" not in item else "role"
    content_field = "value" if "value" in item and "content" not in item else "content"
    name, role = _role(item, role_field, prefix)
    if content_field not in item and not item.get("tool_calls") and not item.get("function_call"):
        raise InvalidRow(f"{prefix}{content_field}", "the field is missing")
    where = f"{prefix}{content_field}"
    content = item.get(content_field)
    calls = _calls(content, where) if name in _CALLS else _tool_calls(item, prefix)
    if calls and role != "assistant":
        raise InvalidRow(f"{prefix}tool_calls", f"only assistant turns call tools, and this is a {role} turn")
    found = Content() if name in _CALLS else read_content(content, where)
    if role == "system" and not found.text:
        return None
    if not found.text and not calls and role != "tool":
        raise InvalidRow(where, "expected text, found null" if content is None else "the text is empty")
    thinking = fields.thinking(item, prefix) or found.thinking
    return Message(
        role=role,
        content=found.text,
        thinking=thinking if role == "assistant" else None,
        tool_calls=calls,
        name=fields.optional_text(item, "name"),
        tool_call_id=fields.optional_text(item, "tool_call_id"),
        trained=fields.is_trained(item, prefix),
    )


def _role(item: Mapping[str, object], field: str, prefix: str) -> tuple[str, Role]:
    """The role as the row names it, and ours."""
    if field not in item:
        raise InvalidRow(f"{prefix}{field}", "the field is missing")
    value = item[field]
    name = value.lower() if isinstance(value, str) else ""
    if name not in _ROLES:
        found = clip(value) if isinstance(value, str) else kind(value)
        raise InvalidRow(f"{prefix}{field}", f"expected system, user, assistant or tool, found {found}")
    return name, _ROLES[name]


def read_content(value: object, where: str) -> Content:
    """The text of a turn, which may be in parts; empty if it has no visible character.

    Raises:
        InvalidRow: it is not a text, or has a part that is not one.
    """
    if value is None or isinstance(value, str):
        text = fields.text(value or "", where, may_be_empty=True)
        return Content("" if fields.is_blank(text) else text)
    if not isinstance(value, list):
        raise InvalidRow(where, f"expected text, found {kind(value)}")
    texts: list[str] = []
    thoughts: list[str] = []
    for index, part in enumerate(value):
        place = f"{where}[{index}]"
        name = part.get("type", "text") if isinstance(part, dict) else None
        if isinstance(part, str):
            texts.append(fields.text(part, place, may_be_empty=True))
        elif isinstance(part, dict) and name in _TEXT_PARTS and "text" in part:
            texts.append(fields.text(part["text"], f"{place}.text", may_be_empty=True))
        elif isinstance(part, dict) and name == "thinking" and "thinking" in part:
            thoughts.append(fields.text(part["thinking"], f"{place}.thinking", may_be_empty=True))
        else:
            raise InvalidRow(place, _describe_part(part))
    text = "".join(texts)
    return Content("" if fields.is_blank(text) else text, "".join(thoughts) or None)


def _describe_part(part: object) -> str:
    if not isinstance(part, dict):
        return f"expected a part of the type text, found {kind(part)}"
    name = str(part.get("type"))
    for medium in ("image", "audio", "video"):
        if medium in name:
            return f"parts of the type {medium} are not supported"
    return f"expected a part of the type text, found {clip(name)}; other parts are not supported"


def _tool_calls(item: Mapping[str, object], prefix: str) -> tuple[ToolCall, ...]:
    if item.get("function_call"):
        return (_call(item["function_call"], f"{prefix}function_call"),)
    return _calls(item["tool_calls"], f"{prefix}tool_calls") if item.get("tool_calls") else ()


def _calls(value: object, where: str) -> tuple[ToolCall, ...]:
    found = fields.parsed(value, where)
    calls = found if isinstance(found, list) else [found]
    return tuple(_call(call, f"{where}[{index}]") for index, call in enumerate(calls))


def _call(value: object, where: str) -> ToolCall:
    """A call as OpenAI writes it, or its `function` alone."""
    found = fields.parsed(value, where)
    function = fields.parsed(found.get("function", found), where) if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(function, dict) or "name" not in function:
        raise InvalidRow(where, "expected a tool call with a name and arguments")
    arguments = fields.parsed(function.get("arguments") or {}, f"{where}.arguments")
    if not isinstance(arguments, dict):
        raise InvalidRow(f"{where}.arguments", f"expected an object, found {kind(arguments)}")
    identifier = found.get("id")
    return ToolCall(
        name=fields.text(function["name"], f"{where}.name"),
        arguments=arguments,
        id=identifier if isinstance(identifier, str) else None,
    )


def read_tools(value: object, where: str) -> tuple[dict[str, Any], ...]:
    """Definitions of tools: a list of JSON schemas, or its JSON text.

    Raises:
        InvalidRow: it is not such a list.
    """
    if value is None or value == "":
        return ()
    found = fields.parsed(value, where)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise InvalidRow(where, f"expected a list of tool definitions, found {kind(found)}")
    return tuple(found)
