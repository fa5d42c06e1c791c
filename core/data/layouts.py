"""From a row's columns to the turns of a conversation.

Covers: the four layouts, which one a file is in, and what a conversation must be: an optional system turn, then user
and assistant turns by turns, the last an assistant's, which is what every common chat template accepts.
Not here: tool calls, images, content in parts, weights on turns; such rows are refused, with the reason.
"""

from collections import Counter
from collections.abc import Iterable
from typing import assert_never

from core.data.jsontext import clip, kind
from core.schemas.data import ColumnMap, Message, Role, RowError, RowFormat

NAMES: dict[RowFormat, str] = {
    "messages": "chat `messages`",
    "prompt_completion": "`prompt` and `completion`",
    "alpaca": "`instruction` and `output`",
    "mapped": "the columns that the column map names",
}
_NEEDED: dict[RowFormat, tuple[str, ...]] = {
    "messages": ("messages",),
    "prompt_completion": ("prompt", "completion"),
    "alpaca": ("instruction", "output"),
}
# To ignore one of these would train something other than what the row says.
_UNSUPPORTED = {
    "tools": "tool use",
    "functions": "tool use",
    "tool_calls": "tool use",
    "function_call": "tool use",
    "tool_call_id": "tool use",
    "images": "images",
    "audio": "audio",
    "weight": "weights on turns",
    "train": "weights on turns",
    "thinking": "reasoning beside the answer",
    "reasoning_content": "reasoning beside the answer",
}


class InvalidRow(Exception):
    """A row cannot be used. It never leaves core.data."""

    def __init__(self, column: str | None, reason: str) -> None:
        super().__init__(reason)
        self.column = column
        self.reason = reason

    def at(self, line: int) -> RowError:
        """The error of the row that begins on this line."""
        return RowError(line=line, column=self.column, reason=self.reason)


class InvalidFile(InvalidRow):
    """A row shows that no row of the file can be used."""


def detect(names: tuple[str, ...]) -> RowFormat:
    """The layout that these columns make.

    Raises:
        InvalidFile: they make none.
    """
    for layout, needed in _NEEDED.items():
        if all(name in names for name in needed):
            return layout
    known = "; ".join(NAMES[layout] for layout in _NEEDED)
    raise InvalidFile(
        None,
        f"no known layout has the columns {listed(names)}. Known are {known}. "
        "For other columns send a column map that names the prompt and the completion",
    )


def listed(names: tuple[str, ...]) -> str:
    """Column names for a message, cut where there are many."""
    shown = ", ".join(clip(name, 30) for name in names[:8])
    return f"{shown}, ..." if len(names) > 8 else shown or "(none)"


def reject_repeated(names: Iterable[str]) -> None:
    """Raise `InvalidRow` for the first column name of a CSV file that occurs twice; unnamed columns do not count."""
    for name, count in Counter(names).items():
        if name and count > 1:
            raise InvalidRow(name, "the header contains this column twice; rename one of them")


def needed_columns(layout: RowFormat, columns: ColumnMap | None) -> tuple[str, ...]:
    """The columns that every row of `layout` must have; mapped ones in the order prompt, completion, system."""
    if layout == "mapped":
        if columns is None:
            raise ValueError("the mapped layout needs a column map")
        return (columns.prompt, columns.completion, *([columns.system] if columns.system else []))
    return _NEEDED[layout]


def to_messages(value: object, layout: RowFormat, columns: ColumnMap | None) -> tuple[Message, ...]:
    """The conversation in a row.

    Raises:
        InvalidRow: the row is no object, is in another layout, or holds no valid conversation.
    """
    row = as_row(value)
    needed = needed_columns(layout, columns)
    missing = [name for name in needed if name not in row]
    if missing:
        raise InvalidRow(missing[0], _missing(row, layout))
    match layout:
        case "messages":
            _refuse_unsupported(row, "")
            return _chat(row["messages"])
        case "prompt_completion":
            return _turns(None, _text(row, "prompt"), _text(row, "completion"))
        case "alpaca":
            instruction, extra = _text(row, "instruction"), _optional(row, "input")
            prompt = f"{instruction}\n\n{extra}" if extra else instruction
            return _turns(_optional(row, "system"), prompt, _text(row, "output"))
        case "mapped":
            prompt, completion, *system = needed
            return _turns(_optional(row, system[0]) if system else None, _text(row, prompt), _text(row, completion))
        case _:
            assert_never(layout)


def as_row(value: object) -> dict[str, object]:
    """The row as columns and what stands in them.

    Raises:
        InvalidRow: it is no object.
    """
    if not isinstance(value, dict):
        raise InvalidRow(None, f"the row is {kind(value)}, not an object with columns")
    return value


def _missing(row: dict[str, object], layout: RowFormat) -> str:
    reason = f"the column is missing; the rows of this file have {NAMES[layout]}"
    if layout == "mapped":
        return f"{reason}, and this row has {listed(tuple(row))}"
    other = next((name for name, needed in _NEEDED.items() if all(column in row for column in needed)), None)
    return f"{reason}, but this row has {NAMES[other]}; use one layout per file" if other else reason


def _turns(system: str | None, prompt: str, completion: str) -> tuple[Message, ...]:
    head = (Message(role="system", content=system),) if system else ()
    return (*head, Message(role="user", content=prompt), Message(role="assistant", content=completion))


def _chat(value: object) -> tuple[Message, ...]:
    if not isinstance(value, list):
        raise InvalidRow("messages", f"expected a list of messages, found {kind(value)}")
    messages = tuple(_message(item, f"messages[{index}]") for index, item in enumerate(value))
    if not any(message.role == "assistant" for message in messages):
        raise InvalidRow("messages", "the row has no assistant turn, so there is nothing to train on")
    start = 1 if messages[0].role == "system" else 0
    for index, message in enumerate(messages[start:], start):
        expected: Role = "user" if (index - start) % 2 == 0 else "assistant"
        if message.role != expected:
            raise InvalidRow(f"messages[{index}].role", _describe_order(message.role))
    if messages[-1].role != "assistant":
        raise InvalidRow(f"messages[{len(messages) - 1}].role", "the last turn must be the assistant's")
    return messages


def _describe_order(role: Role) -> str:
    """Why a turn of this role cannot be at a place that alternation gives to another role."""
    if role == "system":
        return "a system turn must be the first turn"
    if role == "user":
        return "two user turns in a row; join them, or add the assistant's turn between them"
    return "an assistant turn must follow a user turn; join two assistant turns, and begin with the user's"


def _message(value: object, where: str) -> Message:
    if not isinstance(value, dict):
        raise InvalidRow(where, f"expected an object with role and content, found {kind(value)}")
    message: dict[str, object] = value
    for name in ("role", "content"):
        if name not in message:
            raise InvalidRow(f"{where}.{name}", "the field is missing")
    role = message["role"]
    if role in ("tool", "function"):
        raise InvalidRow(f"{where}.role", f"{role} turns are not supported; leave out rows with tool use")
    _refuse_unsupported(message, f"{where}.")
    if role not in ("system", "user", "assistant"):
        found = clip(role) if isinstance(role, str) else kind(role)
        raise InvalidRow(f"{where}.role", f"expected system, user or assistant, found {found}")
    content = checked_text(message["content"], f"{where}.content", may_be_empty=role == "system")
    return Message(role=role, content=content)


def _refuse_unsupported(holder: dict[str, object], prefix: str) -> None:
    for name in sorted(_UNSUPPORTED.keys() & holder.keys()):
        value = holder[name]
        harmless = value is None or value == [] or (name in ("weight", "train") and value == 1)
        if not harmless:
            raise InvalidRow(f"{prefix}{name}", f"{_UNSUPPORTED[name]}: not supported; remove it or the row")


def _text(row: dict[str, object], name: str) -> str:
    return checked_text(row[name], name, may_be_empty=False)


def _optional(row: dict[str, object], name: str) -> str | None:
    value = row.get(name)
    if value is None:
        return None
    text = checked_text(value, name, may_be_empty=True)
    return text if text.strip() else None


def checked_text(value: object, where: str, *, may_be_empty: bool) -> str:
    """A text that every part of the service can store and send.

    Raises:
        InvalidRow: it is no text, or has a character that cannot be kept.
    """
    if not isinstance(value, str):
        raise InvalidRow(where, f"expected text, found {kind(value)}")
    if "\0" in value:
        raise InvalidRow(where, f"there is a NUL at character {value.index(chr(0)) + 1}; remove it")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            place = f"half of a surrogate pair (U+{ord(value[error.start]):04X}) is at character {error.start + 1}"
            raise InvalidRow(where, f"{place}; UTF-8 cannot encode it") from None
    if not may_be_empty and not value.strip():
        raise InvalidRow(where, "the text is empty")
    return value
